"""The tracking database on a network file system: changed elsewhere, replaced in one step."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from kd.tracking import own_disk, track
from kd.tracking.own_disk import file_system_of, on_own_disk
from tests.test_tracking import ULD, runs_of, write_evaluation, write_run

MOUNTS = """\
overlay / overlay rw 0 0
home:/export /home nfs4 rw,vers=4.2 0 0
/dev/sdb1 /home/local ext4 rw 0 0
scratch@tcp:/s /scratch\\040fast lustre rw 0 0
"""


@pytest.fixture
def mounts(tmp_path, monkeypatch):
    file = tmp_path / "mounts"
    file.write_text(MOUNTS)
    monkeypatch.setattr(own_disk, "MOUNTS", file)


@pytest.fixture
def on_nfs(tmp_path, monkeypatch):
    file = tmp_path / "mounts"
    file.write_text(f"overlay / overlay rw 0 0\nhost:/x {tmp_path} nfs4 rw 0 0\n")
    monkeypatch.setattr(own_disk, "MOUNTS", file)


@pytest.mark.parametrize(
    ("folder", "kind"),
    [
        ("/home/me/kd/results", "nfs4"),
        ("/home", "nfs4"),
        ("/homes", "overlay"),
        ("/home/local/kd", "ext4"),
        ("/scratch fast/kd", "lustre"),
        ("/opt", "overlay"),
    ],
)
def test_the_file_system_is_the_innermost_mount_s(mounts, folder, kind):
    assert file_system_of(Path(folder)) == kind


def test_a_local_database_is_opened_in_its_place(tmp_path):
    with on_own_disk(tmp_path / "mlflow.db") as database:
        assert database == tmp_path / "mlflow.db"


def test_a_remote_one_changes_in_one_step_and_only_on_success(tmp_path, on_nfs):
    original = tmp_path / "mlflow.db"
    original.write_text("old")
    with on_own_disk(original) as copy:
        assert copy.read_text() == "old"
        copy.write_text("new")
        assert original.read_text() == "old"
    assert original.read_text() == "new"
    with pytest.raises(RuntimeError), on_own_disk(original) as copy:
        copy.write_text("half")
        raise RuntimeError
    assert original.read_text() == "new"
    assert not copy.exists()


def test_runs_are_tracked_there_and_again(tmp_path, on_nfs):
    results = tmp_path / "results"
    scores = [write_evaluation(results, ULD, write_run(results, steps=3))]
    assert track(results, scores, experiment="micro").created == 1
    assert track(results, scores, experiment="micro").created == 0
    assert len(runs_of(results)) == 1
    with closing(sqlite3.connect(results / "mlflow.db")) as database:
        ((place,),) = database.execute(
            "SELECT artifact_location FROM experiments WHERE name='micro'"
        )
    assert place == (results / "mlruns").as_uri()
