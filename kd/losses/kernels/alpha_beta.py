"""The kernels of `kd.losses.alpha_beta`, for positive exponents away from 0."""

import numpy as np
from torch import Tensor

from kd.losses.kernels import Evaluated
from kd.losses.kernels.separable import Pair, separable
from kd.losses.kernels.softmax import Floats
from kd.losses.teacher import Teacher

SMALL = 0.1  # exponents below need the formula of `kd.losses.alpha_beta` for their limits
STEEP = 60.0  # beyond exp(60) what p gives would be lost beside a q that rounds to 0


def alpha_beta(
    student: Tensor, teacher: Teacher, *, alpha: float = 0.2, beta: float = 0.7
) -> Evaluated | None:
    """See `kd.losses.alpha_beta.alpha_beta`.

    With x = ln(p / q), its terms are q^(a + b) / (a b) times (e^((a + b) x) - 1) a / (a + b)
    - (e^(a x) - 1), and its slopes are -q^(a + b) (e^(a x) - 1) / a.
    """
    if min(alpha, beta) < SMALL:
        return None
    both = alpha + beta

    def terms(pair: Pair) -> tuple[Floats, Floats] | None:
        ratio = pair.log_p - pair.log_q
        if ratio.max() * both > STEEP:
            return None
        power = np.exp(np.multiply(pair.log_q, both, out=pair.log_q), out=pair.log_q)
        rise = np.expm1(np.multiply(ratio, both, out=pair.log_p), out=pair.log_p)
        rise *= alpha / both
        slopes = np.expm1(np.multiply(ratio, alpha, out=ratio), out=ratio)
        rise -= slopes
        values = np.vecdot(power, rise) / (alpha * beta)
        slopes *= power
        slopes /= -alpha
        return values, slopes

    return separable(student, teacher, terms)


def alpha_divergence(student: Tensor, teacher: Teacher, *, alpha: float = 0.5) -> Evaluated | None:
    """See `kd.losses.alpha_beta.alpha_divergence`."""
    return alpha_beta(student, teacher, alpha=alpha, beta=1 - alpha)
