"""Calibration: bins by hand, bounds, and the score of a perfectly calibrated model."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kd.evaluation.calibration import BINS, brier_score, expected_calibration_error

ANSWERS = st.lists(st.tuples(st.floats(0, 1), st.sampled_from([0.0, 1.0])), min_size=1, max_size=40)


def test_two_bins_by_hand():
    """Bin (0.4, 0.5] holds 0.41 and 0.5, half of them right; bin (0.5, 0.6] a wrong 0.6."""
    found = expected_calibration_error([0.41, 0.5, 0.6], [1, 0, 0])
    assert found == pytest.approx((abs(1 - 0.91) + 0.6) / 3)


def test_the_bounds_of_the_unit_interval_belong_to_its_outer_bins():
    assert expected_calibration_error([0.0, 1.0], [0, 1]) == 0
    assert expected_calibration_error([0.0, 1.0], [1, 0]) == 1
    assert expected_calibration_error([0.0, 0.1], [0, 0]) == pytest.approx(0.05)


@settings(max_examples=50)
@given(ANSWERS)
def test_it_lies_between_the_overall_gap_and_one(answers):
    """Finer bins see no less than one bin for all (triangle inequality)."""
    confidences, correct = zip(*answers, strict=True)
    one_bin = abs(np.mean(confidences) - np.mean(correct))
    found = expected_calibration_error(confidences, correct)
    assert one_bin - 1e-9 <= found <= 1 + 1e-9
    assert expected_calibration_error(confidences, correct, bins=1) == pytest.approx(one_bin)


def test_a_calibrated_model_is_near_zero_and_an_overconfident_one_is_not():
    generator = np.random.default_rng(0)
    truth = generator.uniform(size=20_000)
    correct = (generator.uniform(size=truth.size) < truth).astype(float)
    sharpened = truth**3 / (truth**3 + (1 - truth) ** 3)
    assert expected_calibration_error(truth, correct) < 0.02
    assert expected_calibration_error(sharpened, correct) > 0.08
    brier = [
        np.mean([brier_score(*p) for p in zip(c, correct, strict=True)]) for c in (truth, sharpened)
    ]
    assert brier[0] < brier[1], "the true probabilities have the best score"


def test_there_are_ten_bins():
    """Guo et al. draw ten; figures depend on their number."""
    assert BINS == 10
