"""An extraction that is killed at any moment continues, and ends with the same bytes."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from kd.errors import ArtifactError
from kd.experiment.logits import Logits
from kd.experiment.stages import ExtractSpec
from kd.logits import LogitReader
from kd.teacher import extraction
from kd.teacher.forward import answer_logits
from tests.logits.stores import contents

# One row a batch and a shard, and time enough to be killed between two of them.
PROGRAM = """
import sys, time
from pathlib import Path
from kd.experiment.spec_files import parse_spec
from kd.experiment.stages import ExtractSpec
from kd.logits.writer import LogitWriter
from kd.teacher import extraction

class Slow(LogitWriter):
    def __init__(self, *given, **settings):
        super().__init__(*given, **settings, shard_entries=1)

    def add_batch(self, *given):
        super().add_batch(*given)
        print("row", flush=True)
        time.sleep(float(sys.argv[5]))

extraction.LogitWriter = Slow
spec = parse_spec(ExtractSpec, sys.argv[1])
extraction.extract_logits(spec, *map(Path, sys.argv[2:5]))
"""


def start(made: Path, out: Path, pause: float) -> "subprocess.Popen[str]":
    spec = ExtractSpec(logits=Logits(epsilon=1e-2, deterministic=True)).model_dump(mode="json")
    paths = (made / "model", made / "answers.parquet", out)
    command = [sys.executable, "-c", PROGRAM, json.dumps(spec), *map(str, paths), str(pause)]
    root = str(Path(__file__).parents[2])
    return subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": root},
        text=True,
    )


@pytest.mark.parametrize("made", ["llama"], indirect=True)
def test_killed_twice_it_ends_with_the_same_bytes(made: Path) -> None:
    whole = made / "killed-whole" / "logits"
    done = start(made, whole, 0.0)
    rows = done.communicate()[0].count("row")
    assert done.returncode == 0 and rows > 6
    out = made / "killed" / "logits"
    for after in (2, 3):
        process = start(made, out, 30.0 if after == 3 else 0.05)
        assert process.stdout is not None
        for _ in range(after if after == 2 else 1):
            process.stdout.readline()
        if after == 3:
            second = start(made, out, 0.0)
            assert f"process {process.pid} on" in second.communicate()[1]
            assert second.returncode != 0
        process.send_signal(signal.SIGKILL)
        process.communicate()
        with pytest.raises(ArtifactError, match=r"index.json is missing"):
            LogitReader(out)
        assert not (out.parent / "extract.manifest.json").exists()
    rest = start(made, out, 0.0)
    written = rest.communicate()[0].count("row")
    assert rest.returncode == 0 and written <= rows - 3  # what was done was not done again
    assert contents(out) == contents(whole)


class Stop(BaseException):
    """What a killed process does not catch."""


@pytest.mark.parametrize("made", ["llama"], indirect=True)
@pytest.mark.parametrize("deleted", [False, True])
@pytest.mark.parametrize("step", ["summarise", "StageRecord.write", "settle", "discard_partial"])
def test_killed_behind_the_last_row_it_runs_the_teacher_no_more(
    made: Path, step: str, deleted: bool, tmp_path: Path
) -> None:
    """Not even where Snakemake, which did not see it end, deletes its outputs."""
    spec = ExtractSpec(logits=Logits(epsilon=1e-2))
    passes: list[int] = []

    def extract(out: Path, stopped: str | None = None) -> None:
        def stop(*_: object, **__: object) -> None:
            raise Stop

        def counted(*given: Any) -> Any:
            passes.append(1)
            return answer_logits(*given)

        with pytest.MonkeyPatch.context() as monkeypatch:
            monkeypatch.setattr(extraction, "answer_logits", counted)
            monkeypatch.setenv("KD_KEEP_FINISHED", "1")
            if stopped is not None:
                monkeypatch.setattr(f"kd.teacher.extraction.{stopped}", stop)
            inputs = made / "model", made / "answers.parquet"
            extraction.extract_logits(
                spec, *inputs, out, tmp_path / "checkpoints" / out.parent.name
            )

    def delete(out: Path) -> None:
        if deleted:
            shutil.rmtree(out, ignore_errors=True)
            (out.parent / "extract.manifest.json").unlink(missing_ok=True)

    whole, out = tmp_path / "whole" / "logits", tmp_path / "stopped" / "logits"
    extract(whole)
    assert passes
    with pytest.raises(Stop):
        extract(out, step)
    delete(out)
    passes.clear()
    extract(out)
    assert not passes  # nothing was done again
    assert contents(out) == contents(whole)
    assert not list(out.parent.rglob(".*"))
    delete(out)
    extract(out)
    assert not passes  # nor is what is wholly done
    written = [json.loads((at.parent / "extract.manifest.json").read_text()) for at in (out, whole)]
    assert written[0]["identity"] == written[1]["identity"]
    assert written[0]["notes"] == written[1]["notes"]
