"""Mixtures m = w p + (1 - w) q, as functions of ln(p / q)."""

import numpy as np

from kd.losses.kernels.softmax import Floats

PRECISE = (0.05, 0.95)
"""Weights for which ln(m / p) and ln(m / q) keep their digits, however close p and q are."""


def log_mixture_ratios(ratio: Floats, weight: float) -> tuple[Floats, Floats]:
    """ln(m / p) and ln(m / q) of ln(p / q), which is overwritten; one exponential a token.

    Beside the larger of both sides, m is 1 + v (exp(-|x|) - 1), v the weight of the smaller one.
    """
    gap = np.abs(ratio)
    beside = np.expm1(np.negative(gap, out=gap))
    if weight == 0.5:
        beside *= 0.5
    else:
        beside *= _weight_of_smaller(ratio, weight)
    np.log1p(beside, out=beside)
    over_q = np.maximum(ratio, 0, out=gap)
    over_q += beside
    np.negative(ratio, out=ratio)
    np.maximum(ratio, 0, out=ratio)
    ratio += beside
    return ratio, over_q


def _weight_of_smaller(ratio: Floats, weight: float) -> Floats:
    """The weight w where p is smaller, and 1 - w where q is."""
    signs = np.sign(ratio)
    signs *= 0.5 - weight
    signs += 0.5
    return signs
