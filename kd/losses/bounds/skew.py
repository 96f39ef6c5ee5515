"""Bounds of `kd.losses.skew` and of `cald`, which is made of them."""

import torch
from torch import Tensor

from kd.losses.bounds.storage import storage_error, times_log1p
from kd.losses.mixtures import log_mixture
from kd.losses.probabilities import common_log_probs, log_ratio
from kd.losses.teacher import TopKRows


def skew_kl(student: Tensor, teacher: TopKRows, *, skew: float = 0.1) -> Tensor:
    """What dropped tokens may do, and what storing adds.

    The former, d ln(1 + (1 - a) Q / (a d)), is proved in `kd.losses.skew.skew_kl`; it grows with
    d, and the stored d is no less than the true one. For the latter, m = a p + (1 - a) q and
    g = p ln(p / m): the slope is s = ln(p / m) + 1 - a p / m, and
    ds / d ln p = (1 - a p / m)^2 is between 0 and 1.
    """
    log_q, log_p = common_log_probs(student, teacher)
    log_m = log_mixture(log_p, log_q, skew)
    ratio = log_ratio(log_p, log_m)
    stored = storage_error(teacher, ratio + 1 - skew * ratio.exp())
    rest = (1 - skew) * log_q[:, -1].exp()
    return stored + times_log1p(teacher.dropped, rest / skew)


def skew_reverse_kl(student: Tensor, teacher: TopKRows, *, skew: float = 0.1) -> Tensor:
    """What dropped tokens may do, and what storing adds.

    The former, Q ln(1 + (1 - a) d / (a Q)), is proved in `kd.losses.skew.skew_reverse_kl`; it
    grows with d. For the latter, m = (1 - a) p + a q and g = q ln(q / m): the slope is
    s = -(1 - a) q / m, and d ln |s| / d ln p = -(1 - a) p / m is between -1 and 0.
    """
    log_q, log_p = common_log_probs(student, teacher)
    log_m = log_mixture(log_q, log_p, skew)
    stored = storage_error(teacher, (1 - skew) * log_ratio(log_q, log_m).exp())
    return stored + times_log1p(log_q[:, -1].exp(), (1 - skew) / skew * teacher.dropped)


def cald(
    student: Tensor,
    teacher: TopKRows,
    student_responses: Tensor,
    *,
    skew: float = 0.1,
    student_weight: float = 1.0,
) -> Tensor:
    """The bound of the skew divergence that each row has, times its weight."""
    return torch.where(
        student_responses,
        student_weight * skew_reverse_kl(student, teacher, skew=skew),
        (2 - student_weight) * skew_kl(student, teacher, skew=skew),
    )
