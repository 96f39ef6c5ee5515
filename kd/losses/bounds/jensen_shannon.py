"""Bound of `kd.losses.jensen_shannon`."""

from torch import Tensor

from kd.losses.bounds.storage import storage_error, times_log1p
from kd.losses.mixtures import log_mixture
from kd.losses.probabilities import common_log_probs, log_ratio
from kd.losses.teacher import TopKRows


def jensen_shannon(
    student: Tensor, teacher: TopKRows, *, teacher_weight: float = 0.5, scaled: bool = False
) -> Tensor:
    """What dropped tokens may do, and what storing adds.

    The former is w d ln(1 + (1 - w) Q / (w d)) + (1 - w) Q ln(1 + w d / ((1 - w) Q)), the middle
    of the proof in `kd.losses.jensen_shannon`, with M = w d + (1 - w) Q. It grows with d, and the
    stored d is no less than the true one. For the latter, m = w p + (1 - w) q and
    g = w p ln(p / m) + (1 - w) q ln(q / m): the slope is s = w ln(p / m), and
    ds / d ln p = w (1 - w p / m) is between 0 and 1. `scaled` divides all by w (1 - w).
    """
    log_q, log_p = common_log_probs(student, teacher)
    log_m = log_mixture(log_p, log_q, teacher_weight)
    stored = storage_error(teacher, teacher_weight * log_ratio(log_p, log_m))
    dropped = teacher_weight * teacher.dropped
    rest = (1 - teacher_weight) * log_q[:, -1].exp()
    found = stored + times_log1p(dropped, rest) + times_log1p(rest, dropped)
    return found / (teacher_weight * (1 - teacher_weight)) if scaled else found
