"""TAID's schedule against trajectories that its authors' code gave, in KD_GOLDEN_DIR."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from kd.losses.interpolated import TemporallyAdaptiveInterpolation


def trajectories() -> list[Any]:
    folder = os.environ.get("KD_GOLDEN_DIR")
    if not folder:
        skip = pytest.mark.skip(reason="KD_GOLDEN_DIR is not set: no golden vectors to compare")
        return [pytest.param(None, marks=skip, id="none")]
    content = json.loads((Path(folder) / "taid_schedule.json").read_text())
    return [pytest.param(case, id=case["id"]) for case in content["cases"]]


@pytest.mark.parametrize("case", trajectories())
def test_the_schedule_follows_the_trajectory(case: dict[str, Any]) -> None:
    """Theirs is in float32, and shows the state after each update."""
    hyper = dict(case["hyper"])
    loss = TemporallyAdaptiveInterpolation(hyper.pop("num_train_steps"), **hyper)
    for entry in case["trajectory"]:
        assert int(loss.steps) == entry["step"]
        loss.step(entry["loss"])
        assert loss.t.item() == pytest.approx(entry["t"], rel=1e-6)
        assert loss.momentum.item() == pytest.approx(entry["momentum"], rel=1e-5, abs=1e-7)
