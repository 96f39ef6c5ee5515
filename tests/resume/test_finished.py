"""Work that ended unnoticed is taken back; work of something else is not."""

import os
import shutil
from pathlib import Path

import pytest
from pydantic import BaseModel
from snakemake.persistence.file import FilePersistence

from kd.provenance.manifest import StageRecord
from kd.resume import finished
from kd.resume.finished import LINKS, SWITCH, forget, is_done, settle
from kd.workflow import unnoted_outputs


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


def test_done_but_killed_before_it_could_settle(tmp_path, folder):
    outputs = finish(tmp_path / "out", folder)
    shutil.rmtree(folder)
    (folder / "step-1").mkdir(parents=True)
    assert is_done(record_of(), folder, *outputs)
    assert [entry.name for entry in folder.iterdir()] == [LINKS]


def test_done_and_nothing_left_leaves_nothing(tmp_path, folder):
    outputs = finish(tmp_path / "out", folder)
    shutil.rmtree(tmp_path / "checkpoints")
    assert is_done(record_of(), folder, *outputs)
    assert not (tmp_path / "checkpoints").exists()


def test_links_that_vanish_meanwhile_are_no_error(tmp_path, folder, monkeypatch):
    outputs = finish(tmp_path / "out", folder)
    (outputs[1]).unlink()

    def gone(source, target):
        raise FileNotFoundError(source)

    monkeypatch.setattr(finished, "_link", gone)
    assert not is_done(record_of(), folder, *outputs)


def roots(tmp_path: Path) -> tuple[Path, Path]:
    return tmp_path / "checkpoints" / "experiment", tmp_path / "results" / "experiment"


def test_forgotten_when_noted_but_unfinished_work_is_not(tmp_path, folder):
    finish(tmp_path / "out", folder)
    other = folder.parents[1] / "other" / "fingerprint" / "step-7"
    other.mkdir(parents=True)
    named = folder.parents[1] / "finished" / "f100" / "fingerprint" / "step-7"
    named.mkdir(parents=True)  # a method may be called so
    forget(*roots(tmp_path), set())
    assert not folder.parent.exists()
    assert other.is_dir() and named.is_dir()
    assert (tmp_path / "out" / "curve.jsonl").read_text() == "made"


def test_what_another_snakemake_has_not_noted_stays(tmp_path, folder):
    finish(tmp_path / "out", folder)
    root, results = roots(tmp_path)
    # Beside the checkpoints' place, as a run's are; or named like it, as a store is.
    for unnoted in (results / "run" / "curve.jsonl", results / "curve.jsonl"):
        forget(root, results, {unnoted})
        assert (folder / LINKS).is_dir()
    forget(root, results, {results / "other" / "curve.jsonl"})
    assert not folder.exists()


def test_folders_that_vanish_meanwhile_are_no_error(tmp_path, folder, monkeypatch):
    finish(tmp_path / "out", folder)
    scandir = os.scandir

    def vanishing(path):
        if path == str(folder.parent):
            os.rename(path, tmp_path / "gone")  # a job of another Snakemake has ended
        return scandir(path)

    monkeypatch.setattr(os, "scandir", vanishing)
    forget(*roots(tmp_path), set())


def test_unnoted_outputs_are_read_from_snakemake_s_marks(tmp_path):
    marks = tmp_path / ".snakemake" / "incomplete"
    marks.mkdir(parents=True)
    kept = FilePersistence.__new__(FilePersistence)  # its files alone, no workflow
    kept._max_len = None
    long = f"results/{'long-name/' * 40}model"
    for path in ("results/micro/models/llama/model", long):
        kept._io_write(str(marks), {"external_jobid": None}, path)
    assert any(mark.is_dir() for mark in marks.iterdir())
    (marks / "migration_underway").touch()
    assert unnoted_outputs(tmp_path) == {Path("results/micro/models/llama/model"), Path(long)}
    assert unnoted_outputs(tmp_path / "elsewhere") == set()
