"""Probabilities as 16-bit numbers, with an error that is known and counted.

A probability p is stored as its logarithm in steps: the code round(-ln p / step), so that every
p is right within a factor exp(step / 2). Kept tokens have p > epsilon / V (see
`kd.logits.selection`), so that step = ln(V / epsilon) / 65534 reaches all of them: for epsilon =
1e-3 and V = 32,000 p is right within 1.3e-4 of itself, whatever it is.

A dropped mass d is stored by its log-odds ln d - ln(1 - d), in steps of 1/1024 nat, rounded up.
So d is at most 0.1 % too large and what is kept, 1 - d, at most 0.1 % too small, however near to 0
either of them is: at high temperatures almost everything may be dropped. The codes reach from
1e-20, below which d is rounded up to it, to 1 - 1.5e-8. That is enough: the k likeliest of V tokens
have at least k / V at every temperature, and V is at most 2^20. Bounds in d thus stay bounds. One
code is left for d = 0.

Reading makes kept and dropped mass add up to 1 again, by a factor e^c on the kept ones; then
|ln p~ - ln p| <= step / 2 + |c| is what is known of each, usually less than a step. There is a
second upper bound of d, 1 less the least that the kept tokens can have; the smaller one is taken.
"""

from math import log

import numpy as np
from numpy.typing import NDArray

from kd.logits.rows import ROUNDING
from kd.logits.selection import Floats, Ints

Codes = NDArray[np.uint16]

LARGEST = 65534  # code
NOTHING = 65535  # the code of a dropped mass of 0
DROPPED_STEP = 2.0**-10  # of the log-odds of a dropped mass, in nats
LEAST_ODDS = -46.0  # what code 0 stands for


def step_of(epsilon: float, vocabulary: int) -> float:
    """The step that reaches every token that is kept at `epsilon` > 0, in nats."""
    return log(vocabulary / epsilon) / LARGEST


def encode_log_probs(log_probs: Floats, step: float) -> Codes:
    """The nearest codes of logarithms <= 0."""
    return np.rint(np.clip(-log_probs / step, 0, LARGEST)).astype(np.uint16)


def encode_masses(masses: Floats) -> Codes:
    """Codes of masses from 0 up to 1, each standing for no less than it."""
    with np.errstate(divide="ignore"):
        steps = (np.log(masses) - np.log1p(-masses) - LEAST_ODDS) / DROPPED_STEP
    codes = np.ceil(np.clip(steps, 0, LARGEST)).astype(np.uint16)
    return np.where(masses == 0, np.uint16(NOTHING), codes)


def decode_masses(codes: Codes) -> Floats:
    """The masses that codes stand for."""
    masses = 1 / (1 + np.exp(-LEAST_ODDS - DROPPED_STEP * codes.astype(np.float64)))
    return np.where(codes == NOTHING, 0.0, masses)


def decode(
    codes: Codes, counts: Ints, dropped: Codes, step: float
) -> tuple[Floats, Floats, Floats]:
    """Log-probabilities [E], dropped masses [T, C] and errors of the former [T], in nats.

    Args:
        codes: [E], of the kept tokens.
        counts: [T], how many of these each answer token has, at least 1.
        dropped: [T, C], of the dropped masses: at temperature 1, and at others.
        step: of the codes.
    """
    log_probs = -step * codes.astype(np.float64)
    masses = decode_masses(dropped)
    if not len(counts):
        return log_probs, masses, np.zeros(0)
    kept = np.add.reduceat(np.exp(log_probs), counts.cumsum() - counts)
    least = kept * np.exp(-step / 2 - ROUNDING)  # the true masses have at least this sum
    masses[:, 0] = np.minimum(masses[:, 0], np.maximum(1 - least, 0))
    factors = np.log1p(-masses[:, 0]) - np.log(kept)
    return log_probs + np.repeat(factors, counts), masses, step / 2 + np.abs(factors) + ROUNDING
