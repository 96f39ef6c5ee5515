"""The tracking database on a network file system: changed elsewhere, replaced in one step."""

import sqlite3
import subprocess
from contextlib import closing, suppress
from pathlib import Path

import pytest

from kd.provenance.storage import storage_trouble
from kd.tracking import own_disk, server, track
from kd.tracking.own_disk import file_system_of, on_own_disk
from kd.tracking.server import TrackingError
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


@pytest.fixture
def small_disk(tmp_path):
    path = tmp_path / "disk"
    path.mkdir()
    made = ["mount", "-t", "tmpfs", "-o", "size=400k", "tmpfs", str(path)]
    if subprocess.run(made, capture_output=True, check=False).returncode != 0:
        pytest.skip("no permission to mount a small file system")
    yield path
    subprocess.run(["umount", "-l", str(path)], check=True)


def test_a_full_disk_leaves_no_half_made_database(small_disk):
    results = small_disk / "results"
    scores = [write_evaluation(results, ULD, write_run(results, steps=3))]
    with pytest.raises((OSError, TrackingError)) as refused:
        track(results, scores, experiment="micro")
    said = storage_trouble(refused.value) or str(refused.value)
    assert "no space is left" in said or "disk is full" in said
    assert not (results / "mlflow.db").exists()
    subprocess.run(["mount", "-o", "remount,size=50m", str(small_disk)], check=True)
    assert track(results, scores, experiment="micro").created == 1


def test_a_database_that_cannot_grow_is_not_to_be_deleted(small_disk):
    results = small_disk / "results"
    subprocess.run(["mount", "-o", "remount,size=50m", str(small_disk)], check=True)
    scores = [write_evaluation(results, ULD, write_run(results, steps=3))]
    track(results, scores, experiment="micro")
    more = write_evaluation(results, f"{ULD}0", write_run(results, f"{ULD}0", steps=3))
    ballast = small_disk / "ballast"
    with suppress(OSError), ballast.open("wb", buffering=0) as file:
        while file.write(bytes(4096)):
            pass
    with pytest.raises((OSError, TrackingError)) as refused:
        track(results, [*scores, more], experiment="micro")
    assert "Delete" not in (storage_trouble(refused.value) or str(refused.value))
    ballast.unlink()
    assert track(results, [*scores, more], experiment="micro").created == 1


def test_a_process_killed_while_it_makes_the_tables_leaves_none(tmp_path, monkeypatch):
    """Their number grows in many transactions; a database that has some of them is refused."""
    results = tmp_path / "results"
    scores = [write_evaluation(results, ULD, write_run(results, steps=3))]

    def killed(database: Path) -> None:
        database.write_bytes(b"")
        raise KeyboardInterrupt

    monkeypatch.setattr(server, "_make_tables", killed)
    with pytest.raises(KeyboardInterrupt):
        track(results, scores, experiment="micro")
    assert not (results / "mlflow.db").exists()
