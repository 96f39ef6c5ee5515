"""Losses whose target moves from the student to the teacher during training."""

import math

import torch
from torch import Tensor, nn

from kd.errors import LossError
from kd.losses.declaration import loss
from kd.losses.mixtures import log_power_mean
from kd.losses.probabilities import common_log_probs, expectation
from kd.losses.teacher import Teacher

# A loss below this is 0 up to rounding: how much it changed relatively says nothing.
ROUNDING = 1e-12


@loss(
    "taid",
    family="interpolated",
    same_vocabulary=True,
    truncation="unbounded",
    formula=r"\sum_v r_v \ln \frac{r_v}{q_v}, \quad r_v \propto p_v^t \, q_v^{1 - t}",
    source="Shing et al., arXiv 2501.16937, section 3",
    ranges={"t_start": "[0, 1]", "t_end": "[0, 1]", "alpha": "[0, inf)", "beta": "[0, 1)"},
)
class TemporallyAdaptiveInterpolation(nn.Module):
    """Temporally adaptive interpolation (TAID): KL(r || q), r between student and teacher.

    r is proportional to p^t q^(1 - t), the softmax of (1 - t) times the student's plus t times
    the teacher's logits. It is a constant: no gradient flows through its q, and the gradient
    in the student's logits is q - r. At t = 1 this is `forward_kl`, at t = 0 it is 0. Between
    them r excludes what either side does, and no r exists where nothing is allowed by both.

    t starts at `t_start`. Call `step` with the loss's value after each of the N =
    `total_steps` optimiser steps; with d = (previous value - value) / previous value the n-th
    call, n counted from 0, sets

        momentum <- beta * momentum + (1 - beta) * d,
        t <- min(t_end, max(t_start + (t_end - t_start) * n / N,
                            t + alpha * sigmoid(momentum) * (1 - t))).

    The first call has no previous value and only stores its own. t never falls, and with the
    default alpha the linear ramp dominates. t, the momentum, the previous value and n are
    buffers, saved and restored with the student.

    The authors' code takes the cross-entropy of r and q as the value, at every forward pass.
    KL(r || q) is smaller by the entropy of r, so the same fall is a larger d here. Passing the
    cross-entropy to `step` gives the authors' schedule.

    Top-k teacher: r is formed over the stored tokens and one outcome for all others. Merging
    tokens and the power mean do not commute, so the error of this estimate is not known.

    Args:
        total_steps: optimiser steps of the whole training, N.
        t_start: t of the first step, between 0 and `t_end`.
        t_end: the largest t, at most 1.
        alpha: the largest share of the way to 1 that a step may add to t.
        beta: share of the momentum that a step keeps, from 0 to less than 1.

    Raises:
        LossError: a value out of its range.
    """

    t: Tensor
    momentum: Tensor
    previous: Tensor
    steps: Tensor

    def __init__(
        self,
        total_steps: int,
        *,
        t_start: float = 0.4,
        t_end: float = 1.0,
        alpha: float = 5e-4,
        beta: float = 0.99,
    ) -> None:
        super().__init__()
        if not 0 <= t_start <= t_end <= 1:
            raise LossError(f"t goes from {t_start} to {t_end}: 0 <= t_start <= t_end <= 1.")
        if alpha < 0 or not 0 <= beta < 1 or total_steps < 1:
            raise LossError(
                f"alpha is {alpha}, beta {beta}, total_steps {total_steps}, but alpha must not be "
                "negative, beta must be at least 0 and less than 1, and total_steps at least 1."
            )
        self.total_steps = total_steps
        self.t_start, self.t_end = t_start, t_end
        self.alpha, self.beta = alpha, beta
        self.register_buffer("t", torch.tensor(t_start, dtype=torch.float64))
        self.register_buffer("momentum", torch.tensor(0.0, dtype=torch.float64))
        self.register_buffer("previous", torch.tensor(math.nan, dtype=torch.float64))
        self.register_buffer("steps", torch.tensor(0))

    def forward(self, student: Tensor, teacher: Teacher) -> Tensor:
        """KL(r || q) of each of the N rows, at the present t; in evaluation at its last one.

        A target that moves away as the student follows would make the first validation the
        best one.
        """
        t = float(self.t) if self.training else self.t_end
        log_q, log_p = common_log_probs(student, teacher)
        mean = log_power_mean(log_p, log_q.detach(), t, exponent=0.0)
        log_r = torch.log_softmax(mean, dim=-1)
        return expectation(log_r, log_r - log_q)

    def step(self, value: float) -> None:
        """Advance t after an optimiser step in which the loss was `value`."""
        t = float(self.t)
        if self.steps > 0:
            self.momentum.mul_(self.beta).add_((1 - self.beta) * self._relative_fall(value))
            t += self.alpha * float(self.momentum.sigmoid()) * (1 - t)
        ramp = self.t_start + (self.t_end - self.t_start) * int(self.steps) / self.total_steps
        self.t.fill_(min(self.t_end, max(ramp, t)))
        self.previous.fill_(value)
        self.steps.add_(1)

    def _relative_fall(self, value: float) -> float:
        previous = float(self.previous)
        return (previous - value) / previous if previous > ROUNDING else 0.0
