"""Full, read-only and vanished storage: one sentence, nothing spoilt, and it goes on afterwards."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from kd.errors import TrainingError
from kd.provenance.storage import storage_trouble
from kd.resume.schedule import CheckpointSchedule
from tests.resume.test_killed_processes import content, progress_in, stages

EVERY_STEP = {"KD_CHECKPOINT_SECONDS": "0.001"}


class SmallDisk:
    """A file system of its own in memory."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def mount(self, options: str) -> bool:
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(self.path)]
        return subprocess.run(command, capture_output=True, check=False).returncode == 0

    def change(self, options: str) -> None:
        subprocess.run(["mount", "-o", f"remount,{options}", str(self.path)], check=True)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    made = SmallDisk(tmp_path / "disk")
    made.path.mkdir()
    if not made.mount("size=300k"):
        pytest.skip("no permission to mount a small file system")
    yield made
    subprocess.run(["umount", "-l", str(made.path)], check=True)


def refused(command) -> str:
    process = command.start(**EVERY_STEP)
    process.join(120)
    assert process.exitcode == 2, command.said()
    last = command.said().strip().splitlines()[-1]
    assert last.startswith("kd: error: ")
    return last


def at(disk: SmallDisk, chain, tmp_path: Path, name: str = "uld"):
    command = stages(name, chain, disk.path / "out", disk.path / "checkpoints")
    return type(command)(command.arguments, tmp_path / "log")


@pytest.mark.slow
def test_a_full_disk_stops_a_training_which_goes_on_when_there_is_room(chain, disk, tmp_path):
    stages("uld", chain, tmp_path / "whole", tmp_path / "nowhere").finish()
    command = at(disk, chain, tmp_path)
    assert "no space is left on the device" in refused(command)
    assert not list(disk.path.rglob(".*")), "nothing half written, no lock"
    disk.change("size=100m")
    command.finish()
    assert content(disk.path / "out") == content(tmp_path / "whole")


@pytest.mark.slow
def test_a_read_only_disk_is_named_and_nothing_is_lost(chain, disk, tmp_path):
    stages("answer", chain, tmp_path / "whole", tmp_path / "nowhere").finish()
    command = at(disk, chain, tmp_path, "answer")
    disk.change("ro")
    assert "the file system is read-only" in refused(command)
    disk.change("rw,size=100m")
    command.finish()
    assert content(disk.path / "out") == content(tmp_path / "whole")


@pytest.mark.slow
def test_a_vanished_model_is_named_and_missed_no_more_when_it_is_back(chain, tmp_path):
    command = stages("uld", chain, tmp_path / "out", tmp_path / "checkpoints")
    model = chain.model("mistral")
    model.rename(model.with_name("elsewhere"))
    try:
        assert f"{model}: missing, needed as student" in refused(command)
    finally:
        model.with_name("elsewhere").rename(model)
    command.finish()
    assert progress_in(tmp_path / "checkpoints") == 0


def test_other_errors_are_no_trouble_of_the_storage():
    assert storage_trouble(ValueError("x")) is None
    assert storage_trouble(FileNotFoundError(2, "no such file", "f")) is None
    copied = storage_trouble(OSError(28, "full", "from", None, "to")) or ""
    assert copied.startswith("to: no space is left")
    wrapped = RuntimeError("I/O error: No space left on device (os error 28)")
    assert "no space is left" in (storage_trouble(wrapped) or "")


@pytest.mark.parametrize("text", ["soon", "0", "-1", "nan"])
def test_an_interval_that_is_none_is_refused(monkeypatch, text):
    monkeypatch.setenv("KD_CHECKPOINT_SECONDS", text)
    with pytest.raises(TrainingError, match="KD_CHECKPOINT_SECONDS"):
        CheckpointSchedule(None, 10)
