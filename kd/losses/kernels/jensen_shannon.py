"""The kernel of `kd.losses.jensen_shannon`."""

import numpy as np
from torch import Tensor

from kd.losses.kernels import Evaluated
from kd.losses.kernels.mixtures import PRECISE, log_mixture_ratios
from kd.losses.kernels.separable import Pair, separable
from kd.losses.kernels.softmax import Floats
from kd.losses.teacher import Teacher


def jensen_shannon(
    student: Tensor, teacher: Teacher, *, teacher_weight: float = 0.5, scaled: bool = False
) -> Evaluated | None:
    """See `kd.losses.jensen_shannon.jensen_shannon`; its slope is (1 - w) q ln(q / m)."""
    weight = teacher_weight
    if not PRECISE[0] <= weight <= PRECISE[1]:
        return None
    scale = 1 / (weight * (1 - weight)) if scaled else 1.0

    def terms(pair: Pair) -> tuple[Floats, Floats]:
        ratio = np.subtract(pair.log_p, pair.log_q, out=pair.log_p)
        over_p, over_q = log_mixture_ratios(ratio, weight)
        over_q *= (weight - 1) * scale
        values = np.vecdot(pair.q, over_q) - weight * scale * np.vecdot(pair.p, over_p)
        over_q *= pair.q
        return values, over_q

    return separable(student, teacher, terms)
