"""The kernel of `kd.losses.assistant`, for Kullback-Leibler divergences."""

import numpy as np
from torch import Tensor

from kd.losses.kernels import Evaluated
from kd.losses.kernels.mixtures import PRECISE, log_mixture_ratios
from kd.losses.kernels.separable import Pair, separable
from kd.losses.kernels.softmax import Floats
from kd.losses.teacher import Teacher

SMALL = 0.1  # means with a smaller exponent need the formula of `kd.losses.mixtures`


def amid(
    student: Tensor,
    teacher: Teacher,
    *,
    alpha: float = 0.5,
    teacher_weight: float = 0.5,
    divergence: str = "kl",
    order: str = "pr",
    ab_alpha: float = 0.2,
    ab_beta: float = 0.7,
) -> Evaluated | None:
    """See `kd.losses.assistant.amid`.

    The logarithm of the mean grows with ln q by q's share of the sum of powers; that of the
    assistant by as much less its own expectation, for it is normalised.
    """
    del ab_alpha, ab_beta
    exponent = (1 - alpha) / 2
    ordinary = divergence == "kl" and PRECISE[0] <= teacher_weight <= PRECISE[1]
    if not ordinary or exponent < SMALL:
        return None

    def terms(pair: Pair) -> tuple[Floats, Floats] | None:
        log_r, share = _mean(pair, exponent, teacher_weight)
        r = np.exp(log_r)
        r *= pair.p + pair.q > 0  # what both exclude has no logarithm to go by
        total = r.sum(axis=-1, keepdims=True)
        log_r -= np.log(total)
        r /= total
        sides = {"p": (pair.log_p, pair.p), "q": (pair.log_q, pair.q), "r": (log_r, r)}
        (log_x, x), (log_y, _) = sides[order[0]], sides[order[1]]
        ratio = log_x - log_y
        values = np.vecdot(x, ratio)
        slopes = dict(zip(order, (np.multiply(ratio, x, out=ratio), -x), strict=True))
        through_r = slopes["r"]
        r *= through_r.sum(axis=-1, keepdims=True)
        through_r -= r
        through_r *= share
        if "q" in slopes:
            through_r += slopes["q"]
        return values, through_r

    return separable(student, teacher, terms)


def _mean(pair: Pair, exponent: float, weight: float) -> tuple[Floats, Floats]:
    """Logarithm of the power mean of p and q, and q's share of the sum of powers."""
    ratio = pair.log_p - pair.log_q
    ratio *= exponent
    _, over_q = log_mixture_ratios(ratio, weight)
    share = np.exp(-over_q)
    share *= 1 - weight
    over_q /= exponent
    over_q += pair.log_q
    return over_q, share
