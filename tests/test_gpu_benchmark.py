"""The benchmark of GPUs runs at toy sizes on a CPU, all of its parts."""

import csv
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from benchmarks.gpu.device import TINY, Machine

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.slow
def test_every_part_gives_figures_beside_their_limits(tmp_path):
    out = tmp_path / "gpu.csv"
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.gpu", "--tiny", "--device", "cpu", "--out", str(out)],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    with out.open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert {row["part"] for row in rows} == {"device", "teacher", "student", "losses", "chain"}
    cases = [(row["part"], row["what"]) for row in rows]
    assert ("teacher", "generation") in cases and ("teacher", "teacher-forced pass") in cases
    assert cases.count(("student", "steps")) == 2
    limited = [row for row in rows if row["limit"]]
    assert limited and all(float(row["limit"]) > 0 < float(row["value"]) for row in limited)
    (chain,) = [row for row in rows if row["what"] == "stages with equal bytes"]
    assert chain["value"] == "4", chain["note"]


def test_what_does_not_fit_is_halved_and_noted():
    machine = Machine(torch.device("cpu"), TINY)

    def run(size):
        if size > 2:
            raise torch.OutOfMemoryError
        return "fits"

    assert machine.fitting(run, 8) == ("fits", 2, "2 at a time, more did not fit")
    assert machine.fitting(run, 2) == ("fits", 2, "")
    with pytest.raises(torch.OutOfMemoryError):
        machine.fitting(lambda size: run(8), 4)


def test_without_a_gpu_it_says_how_to_try_it():
    if torch.cuda.is_available():
        pytest.skip("there is one")
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.gpu"],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode != 0
    assert "--tiny --device cpu" in done.stderr
