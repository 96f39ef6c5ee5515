"""The kernels of `kd.losses.kl`."""

import numpy as np
from torch import Tensor

from kd.losses.kernels import Evaluated
from kd.losses.kernels.separable import Pair, separable
from kd.losses.kernels.softmax import Floats
from kd.losses.teacher import Teacher, TopKRows


def forward_kl(student: Tensor, teacher: Teacher) -> Evaluated | None:
    """See `kd.losses.kl.forward_kl`; drawn tokens are left to it."""
    if isinstance(teacher, TopKRows) and teacher.entropies is not None:
        return None
    return separable(student, teacher, _forward)


def reverse_kl(student: Tensor, teacher: Teacher) -> Evaluated | None:
    """See `kd.losses.kl.reverse_kl`."""
    return separable(student, teacher, _reverse)


def symmetric_kl(
    student: Tensor, teacher: Teacher, *, forward_weight: float = 0.5
) -> Evaluated | None:
    """See `kd.losses.kl.symmetric_kl`."""

    def both(pair: Pair) -> tuple[Floats, Floats]:
        ratio = np.subtract(pair.log_p, pair.log_q, out=pair.log_p)
        pair.p *= forward_weight
        of_student = np.multiply(pair.q, 1 - forward_weight, out=pair.log_q)
        values = np.vecdot(pair.p, ratio) - np.vecdot(of_student, ratio)
        of_student *= ratio
        of_student += pair.p
        return values, np.negative(of_student, out=of_student)

    return separable(student, teacher, both)


def _forward(pair: Pair) -> tuple[Floats, Floats]:
    ratio = np.subtract(pair.log_p, pair.log_q, out=pair.log_p)
    return np.vecdot(pair.p, ratio), np.negative(pair.p, out=pair.p)


def _reverse(pair: Pair) -> tuple[Floats, Floats]:
    ratio = np.subtract(pair.log_q, pair.log_p, out=pair.log_q)
    values = np.vecdot(pair.q, ratio)
    ratio *= pair.q
    return values, ratio
