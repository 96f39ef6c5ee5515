"""Work that ended unnoticed is taken back; work of something else is not."""

import shutil
from pathlib import Path

import pytest
from pydantic import BaseModel

from kd.provenance.manifest import StageRecord
from kd.resume.finished import LINKS, SWITCH, forget, is_done, settle


class Spec(BaseModel):
    seed: int = 0


def record_of(seed: int = 0) -> StageRecord:
    return StageRecord("stage", Spec(seed=seed), {}, ("kd.resume.finished",))


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv(SWITCH, "1")
    return tmp_path / "checkpoints" / "experiment" / "run" / "fingerprint"


def finish(out: Path, folder: Path, text: str = "made") -> tuple[Path, Path]:
    outputs = out / "model", out / "curve.jsonl"
    (out / "model" / "inner").mkdir(parents=True)
    (out / "model" / "inner" / "weights").write_text(text)
    outputs[1].write_text(text)
    folder.mkdir(parents=True)
    (folder / "step-1").mkdir()
    (folder / "journal.jsonl").write_text("kept to go on from")
    record = record_of()
    record.write(*outputs)
    settle(record, folder, *outputs)
    return outputs


def test_outputs_that_were_deleted_unnoticed_come_back(tmp_path, folder):
    outputs = finish(tmp_path / "out", folder)
    assert [entry.name for entry in folder.iterdir()] == [LINKS]
    shutil.rmtree(tmp_path / "out")
    (tmp_path / "out").mkdir()
    assert is_done(record_of(), folder, *outputs)
    assert (outputs[0] / "inner" / "weights").read_text() == "made"
    assert record_of().is_done(*outputs)


def test_half_of_them_is_replaced(tmp_path, folder):
    outputs = finish(tmp_path / "out", folder)
    (outputs[0] / "inner" / "weights").unlink()
    (outputs[0] / "inner" / "weights").write_text("torn")
    assert is_done(record_of(), folder, *outputs)
    assert (outputs[0] / "inner" / "weights").read_text() == "made"


def test_another_specification_takes_nothing(tmp_path, folder):
    outputs = finish(tmp_path / "out", folder)
    shutil.rmtree(tmp_path / "out")
    assert not is_done(record_of(seed=1), folder, *outputs)


def test_damaged_links_are_not_taken_for_the_outputs(tmp_path, folder):
    outputs = finish(tmp_path / "out", folder)
    (outputs[1]).write_text("edited in place, and so is the link")
    shutil.rmtree(tmp_path / "out")
    assert not is_done(record_of(), folder, *outputs)


def test_without_the_switch_nothing_stays(tmp_path, folder, monkeypatch):
    monkeypatch.delenv(SWITCH)
    finish(tmp_path / "out", folder)
    assert not (tmp_path / "checkpoints").exists()


def test_forgotten_when_noted_but_unfinished_work_is_not(tmp_path, folder):
    finish(tmp_path / "out", folder)
    other = folder.parents[1] / "other" / "fingerprint" / "step-7"
    other.mkdir(parents=True)
    forget(tmp_path / "checkpoints" / "experiment")
    assert not folder.parent.exists()
    assert other.is_dir()
    assert (tmp_path / "out" / "curve.jsonl").read_text() == "made"
