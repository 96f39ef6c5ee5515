"""Numbers about a training curve."""

import json

import pytest

from kd.errors import ArtifactError
from kd.tables.curves import curve_value

RECORDS = [
    {"step": 1, "cross_entropy": 3.0},
    {"step": 1, "validation_cross_entropy": 2.0, "validation_loss": 9.0},
    {"step": 2, "cross_entropy": 1.0},
    {"step": 3, "cross_entropy": 0.5},
    {"step": 3, "validation_cross_entropy": 2.5, "validation_loss": 1.0},
]


@pytest.fixture
def curve(tmp_path):
    path = tmp_path / "train.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in RECORDS))
    return path


@pytest.mark.parametrize(
    ("metric", "value"),
    [
        ("lowest_validation_ce", 2.0),
        ("last_validation_ce", 2.5),
        ("validation_rise", 0.5),
        ("generalisation_gap", 1.75),
    ],
)
def test_curves_by_hand(curve, metric, value):
    """Cross-entropy counts, whatever objective a method is selected by."""
    assert curve_value(curve, metric) == value


def test_a_curve_that_cannot_be_read_is_refused(curve):
    curve.write_text("{}\n")
    with pytest.raises(ArtifactError, match=r"train\.jsonl.*Re-run `kd distill`"):
        curve_value(curve, "validation_rise")
    with pytest.raises(ArtifactError, match="none"):
        curve_value(curve.with_name("none.jsonl"), "validation_rise")
