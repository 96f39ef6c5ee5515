"""The kernel of `kd.losses.total_variation`."""

import numpy as np
from torch import Tensor

from kd.losses.kernels import Evaluated
from kd.losses.kernels.separable import Pair, separable
from kd.losses.kernels.softmax import Floats
from kd.losses.teacher import Teacher


def total_variation(student: Tensor, teacher: Teacher) -> Evaluated | None:
    """See `kd.losses.total_variation.total_variation`."""
    return separable(student, teacher, _terms)


def _terms(pair: Pair) -> tuple[Floats, Floats]:
    gap = np.subtract(pair.q, pair.p, out=pair.p)
    slopes = np.sign(gap, out=pair.log_p)
    values = np.vecdot(slopes, gap) / 2
    slopes *= pair.q
    slopes /= 2
    return values, slopes
