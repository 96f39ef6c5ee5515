"""An extraction that is killed at any moment continues, and ends with the same bytes."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from kd.errors import ArtifactError
from kd.experiment.logits import Logits
from kd.experiment.stages import ExtractSpec
from kd.logits import LogitReader
from tests.logits.stores import contents

# One row a batch and a shard, and time enough to be killed between two of them.
PROGRAM = """
import sys, time
from pathlib import Path
from kd.experiment.stages import ExtractSpec, parse_spec
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
            assert "another process is writing this store" in second.communicate()[1]
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
