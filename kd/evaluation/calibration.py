"""How far a model's confidence in its answers is from its being right.

The confidence in an answer is the probability that the model gives to all of its tokens, the
ending one included. Of all definitions in use (the mean over tokens, their geometric mean, ...)
it is the one for which a model that predicts the references' distribution perfectly is perfectly
calibrated against exact match: of answers to which it gives probability p, it gets a share p
right.
"""

from collections.abc import Sequence

import numpy as np

BINS = 10


def expected_calibration_error(
    confidences: Sequence[float], correct: Sequence[float], bins: int = BINS
) -> float:
    """Mean distance of confidence and accuracy over bins of equal width, by their examples.

    Between 0 (in every bin a share of the answers is right that equals their mean confidence)
    and 1. Bin m of M holds confidences in ((m - 1) / M, m / M], and the first one 0, too. It is
    biased upwards: chance alone parts accuracy from confidence where a bin has few examples.

    Args:
        confidences: between 0 and 1, [n].
        correct: 1 where the answer is right and 0 where it is not, [n].
        bins: number M of bins.

    Source: Guo et al., arXiv 1706.04599, eq. 3; Naeini et al., AAAI 2015.
    """
    confidence, accuracy = np.asarray(confidences, float), np.asarray(correct, float)
    places = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    # In each bin |accuracy - mean confidence|, times its share of the examples.
    gaps = np.bincount(places, weights=accuracy - confidence, minlength=bins)
    return float(np.abs(gaps).sum() / len(confidence))


def brier_score(confidence: float, correct: float) -> float:
    """Squared distance of one answer's confidence from 1 if it is right, from 0 if it is not.

    Its mean over examples is smallest for the true probabilities (a proper score): it rewards
    calibration and telling right from wrong answers at once.

    Source: Brier, Monthly Weather Review 78(1), 1950.
    """
    return (confidence - correct) ** 2
