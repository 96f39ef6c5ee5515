"""Damaged checkpoints: every kind is noticed, and none gets in the way of whole ones."""

import shutil
from pathlib import Path

import pytest
import torch

from kd.resume import checkpoints
from kd.resume.checkpoints import STATE, Checkpoint, CheckpointFolder

VALUES = {"policy": {"share": 0.25}, "best": None, "history": [{"step": 1, "loss": float("inf")}]}


@pytest.fixture
def folder(tmp_path) -> CheckpointFolder:
    return CheckpointFolder(tmp_path, "f" * 64)


def save(folder: CheckpointFolder, step: int) -> Path:
    folder.save(Checkpoint(step, {"model": {"w": torch.full((3,), float(step))}}, VALUES))
    return folder.path / f"step-{step:08d}"


def steps(folder: CheckpointFolder) -> list[int]:
    return sorted(int(path.name.removeprefix("step-")) for path in folder.path.iterdir())


def test_what_is_saved_comes_back(folder):
    save(folder, 7)
    found = folder.newest()
    assert found is not None and found.step == 7
    assert found.values == VALUES
    assert found.tensors["model"]["w"].tolist() == [7.0] * 3


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text.replace(b"0.25", b"0.75"),  # still JSON, and another result
        lambda text: text.replace(b'"step": 2', b'"step": 3'),
        lambda text: text[: len(text) // 2],
        lambda text: b"",
        lambda text: b"\xff" + text[1:],
        lambda text: b"[]",
        lambda text: b'"x"',
        lambda text: b'{"state": {"files": []}, "digest": ""}',
    ],
)
def test_an_altered_state_is_passed_over(folder, change, capsys):
    save(folder, 1)
    state = save(folder, 2) / STATE
    state.write_bytes(change(state.read_bytes()))
    found = folder.newest()
    assert found is not None and found.step == 1
    assert "skipping damaged checkpoint" in capsys.readouterr().err


def test_every_torn_or_flipped_byte_of_the_tensors_is_noticed(folder):
    save(folder, 1)
    file = save(folder, 2) / "model.safetensors"
    whole = file.read_bytes()
    for place in range(len(whole)):
        for broken in (
            whole[:place],
            whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :],
        ):
            file.write_bytes(broken)
            found = folder.newest()
            assert found is not None and found.step == 1, place


def test_damaged_ones_of_later_steps_do_not_push_out_new_ones(folder):
    for step in (50, 60):
        (save(folder, step) / STATE).write_text("torn")
    assert folder.newest() is None
    save(folder, 10)
    save(folder, 20)
    assert steps(folder) == [10, 20]
    found = folder.newest()
    assert found is not None and found.step == 20


def test_one_that_cannot_be_removed_does_not_end_the_run(folder, monkeypatch):
    """A network file system keeps the files of a folder that somebody has open."""

    def refuses(path, ignore_errors=False):
        if not ignore_errors:
            raise OSError(39, "Directory not empty")

    for step in (1, 2):
        save(folder, step)
    monkeypatch.setattr(checkpoints.shutil, "rmtree", refuses)
    save(folder, 3)
    monkeypatch.undo()
    assert steps(folder) == [1, 2, 3]
    save(folder, 4)
    assert steps(folder) == [3, 4]
    shutil.rmtree(folder.path)
