"""The kernels of `kd.losses.skew`."""

import numpy as np
from torch import Tensor

from kd.losses.kernels import Evaluated
from kd.losses.kernels.mixtures import PRECISE, log_mixture_ratios
from kd.losses.kernels.separable import Pair, separable
from kd.losses.kernels.softmax import Floats
from kd.losses.teacher import Teacher


def skew_kl(student: Tensor, teacher: Teacher, *, skew: float = 0.1) -> Evaluated | None:
    """See `kd.losses.skew.skew_kl`; its slope is -p (1 - a) q / m."""
    if not PRECISE[0] <= skew <= PRECISE[1]:
        return None

    def terms(pair: Pair) -> tuple[Floats, Floats]:
        over_p, _ = log_mixture_ratios(np.subtract(pair.log_p, pair.log_q, out=pair.log_p), skew)
        values = -np.vecdot(pair.p, over_p)
        share = _share(pair.q, pair.p, skew, out=pair.log_q)
        share *= pair.p
        return values, np.negative(share, out=share)

    return separable(student, teacher, terms)


def skew_reverse_kl(
    student: Tensor, teacher: Teacher, *, skew: float = 0.1, detach_mixture: bool = False
) -> Evaluated | None:
    """See `kd.losses.skew.skew_reverse_kl`; its slope is q (ln(q / m) + (1 - a) p / m)."""
    if not PRECISE[0] <= skew <= PRECISE[1]:
        return None

    def terms(pair: Pair) -> tuple[Floats, Floats]:
        _, over_q = log_mixture_ratios(
            np.subtract(pair.log_p, pair.log_q, out=pair.log_p), 1 - skew
        )
        values = -np.vecdot(pair.q, over_q)
        if not detach_mixture:
            over_q -= _share(pair.p, pair.q, skew, out=pair.log_q)
        over_q *= pair.q
        return values, np.negative(over_q, out=over_q)

    return separable(student, teacher, terms)


def _share(other: Floats, skewed: Floats, skew: float, *, out: Floats) -> Floats:
    """Share of `other` in the mixture a x + (1 - a) other, x being `skewed`; 0 where both are."""
    part = np.multiply(other, 1 - skew, out=out)
    mixture = skewed * skew
    mixture += part
    np.maximum(mixture, np.finfo(mixture.dtype).tiny, out=mixture)
    part /= mixture
    return part
