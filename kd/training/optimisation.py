"""AdamW and the learning-rate schedule of a run."""

from collections.abc import Iterable

from torch.nn import Parameter
from torch.optim import AdamW, Optimizer
from torch.optim.lr_scheduler import ConstantLR, LRScheduler, OneCycleLR

from kd.experiment.schema import Training


def build_optimizer(parameters: Iterable[Parameter], training: Training) -> AdamW:
    """AdamW with decoupled weight decay on all parameters (as the paper's)."""
    return AdamW(parameters, lr=training.learning_rate, weight_decay=training.weight_decay)


def build_scheduler(optimizer: Optimizer, training: Training, steps: int) -> LRScheduler:
    """Schedule over `steps` optimiser steps.

    OneCycle as in the paper's code: from half the rate up to it over the first tenth of the
    steps, then down to a tenth of it, both along cosines; beta1 cycles against it
    (0.95, 0.85, 0.95) where `cycle_momentum` is on.
    """
    if training.scheduler == "constant":
        return ConstantLR(optimizer, factor=1.0, total_iters=0)
    # A schedule needs a rise and a fall: three steps, the peak at the second or later.
    total = max(steps, 3)
    return OneCycleLR(
        optimizer,
        max_lr=training.learning_rate,
        total_steps=total,
        pct_start=max(training.warmup_fraction, 2 / total),
        div_factor=2.0,
        final_div_factor=5.0,
        cycle_momentum=training.cycle_momentum,
    )
