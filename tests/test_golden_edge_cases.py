"""What ours does in the edge cases that are recorded of other systems, in KD_GOLDEN_DIR."""

import json
import math
import os
from pathlib import Path
from typing import Any

import pytest

from tests.golden.edge_cases import BEHAVIOURS


def edge_cases() -> list[Any]:
    folder = os.environ.get("KD_GOLDEN_DIR")
    if not folder:
        skip = pytest.mark.skip(reason="KD_GOLDEN_DIR is not set: no golden vectors to compare")
        return [pytest.param(None, marks=skip, id="none")]
    content = json.loads((Path(folder) / "edge_cases.json").read_text())
    return [pytest.param(case, id=case["id"]) for case in content["cases"]]


@pytest.mark.parametrize("name", BEHAVIOURS)
def test_ours_behaves_as_described(name: str) -> None:
    BEHAVIOURS[name]()


@pytest.mark.parametrize("case", edge_cases())
def test_every_edge_case_has_a_behaviour_of_ours(case: dict[str, Any]) -> None:
    """Where theirs is a value too, and not NaN, an exception, or a number of NaN, it is ours."""
    system, _, name = case["id"].partition(".")
    assert name in BEHAVIOURS, (
        f"tests/golden/edge_cases.py has no behaviour '{name}' ({system}: {case['what']}): "
        "add a function that shows what ours does"
    )
    ours = BEHAVIOURS[name]()
    if ours is None or name.startswith("skl_grad"):
        return
    theirs = case["result"]
    if isinstance(theirs, int | float) and math.isfinite(theirs):
        assert ours == pytest.approx(theirs, abs=1e-6)
