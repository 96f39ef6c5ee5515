"""Values of exact transport that another system's run recorded for random distributions.

A row holds no distributions, only what was computed of them: ULD, and transport costs under
several readings of "uniform cost". What ties them together is what we say ULD is.
"""

import json
import os
from pathlib import Path

import pytest

Row = dict[str, float | None]


@pytest.fixture(scope="module")
def rows() -> list[Row]:
    folder = os.environ.get("KD_GOLDEN_DIR")
    if not folder:
        pytest.skip("KD_GOLDEN_DIR is not set: no golden vectors to compare")
    content = json.loads((Path(folder) / "uld_vs_exact_ot.json").read_text())
    return [dict(zip(content["columns"], row, strict=True)) for row in content["rows"]]


def test_there_are_rows(rows: list[Row]) -> None:
    assert rows


@pytest.mark.parametrize(
    ("column", "factor"),
    [
        ("W_discrete_rank_ids", 2.0),  # a cost of 1 between different ranks
        ("min_over_perm_W_discrete", 2.0),  # or under the best identification of tokens
        ("V*W1_values_emd", 1.0),  # the distance of both lists of values on the line
        ("V*W1_values_1d", 1.0),
    ],
)
def test_uld_is_the_transport_cost(rows: list[Row], column: str, factor: float) -> None:
    computed = [row for row in rows if row[column] is not None]
    assert computed
    for row in computed:
        assert row["uld"] == pytest.approx(factor * row[column], rel=0, abs=1e-14)


def test_identifying_tokens_as_they_stand_is_another_cost(rows: list[Row]) -> None:
    """Half the L1 distance; twice that is never less than ULD, and mostly more."""
    for row in rows:
        fixed = row["W_discrete_fixed_ids"]
        assert fixed == pytest.approx(row["half_L1_fixed_ids"], rel=0, abs=1e-14)
        assert 2 * fixed >= row["uld"] - 1e-14
    assert sum(2 * row["W_discrete_fixed_ids"] > row["uld"] + 1e-6 for row in rows) > len(rows) / 2


def test_a_literally_uniform_cost_is_always_one(rows: list[Row]) -> None:
    assert all(row["W_constant_cost"] == pytest.approx(1.0, rel=1e-14) for row in rows)


def test_uld_is_within_its_range(rows: list[Row]) -> None:
    assert all(0 <= row["uld"] < 2 for row in rows)
