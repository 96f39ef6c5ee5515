"""TAID at a fixed t. Labels stand at the row that predicts them: no shift."""

from dataclasses import replace

import torch
from torch import Tensor

from kd.losses import Setup
from tests.golden.calls import IGNORED, Call, Hyper, Inputs, source


@source(("SakanaAI/TAID", "TAID.compute_loss"))
def cross_entropy_form(inputs: Inputs, hyper: Hyper) -> Call:
    """H(r, q): the target's entropy is not subtracted."""
    t = hyper.pop("t")
    call = inputs.call("taid", shift=False, t_start=t, t_end=t, setup=Setup(total_steps=1))
    return replace(call, offset=target_entropy(inputs, t))


def target_entropy(inputs: Inputs, t: float) -> Tensor:
    """Mean entropy of softmax((1 - t) student + t teacher) over the scored positions."""
    scored = inputs.labels("student") != IGNORED
    student, teacher = inputs["student_logits"][scored], inputs["teacher_logits"][scored]
    mixed = (1 - t) * student + t * teacher
    log_r = mixed.masked_fill(mixed.isnan(), -torch.inf).log_softmax(-1)  # NaN is 0 * -inf
    return -(log_r.exp() * log_r).nansum(-1).mean().detach()
