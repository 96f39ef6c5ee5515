"""Interrupted writers: what they leave is no store, and what is written in the end is the same."""

import errno
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from kd.errors import ArtifactError
from kd.logits import LogitReader, LogitWriter
from kd.logits import writer as writing
from kd.logits.journal import JOURNAL, discard_partial
from tests.logits.stores import IDS, VOCABULARY, contents, example, shards, write

SETTINGS: dict[str, Any] = {
    "vocabulary": VOCABULARY,
    "epsilon": 0.05,
    "cap": 6,
    "shard_entries": 20,
    "fingerprint": "f",
}


class Stop(BaseException):
    """What a killed process does not catch."""


def interrupted(folder: Path, after: int, **settings: Any) -> Path:
    """Write all rows, but stop after some; returns where the unfinished store lies."""
    with pytest.raises(Stop), LogitWriter(folder, **(SETTINGS | settings)) as writer:
        for row_id in IDS[:after]:
            writer.add(row_id, **example(row_id))
        raise Stop
    return folder.with_name(f".{folder.name}.partial")


def finished(folder: Path, **settings: Any) -> list[str]:
    """Write all rows; returns the ids of those that were there already."""
    with LogitWriter(folder, **(SETTINGS | settings)) as writer:
        for row_id in IDS:
            if row_id not in writer.done:
                writer.add(row_id, **example(row_id))
        return [row_id for row_id in IDS if row_id in writer.done]


@pytest.mark.parametrize("after", range(len(IDS) + 1))
def test_a_store_that_was_interrupted_anywhere_is_none_and_ends_with_the_same_bytes(
    tmp_path: Path, after: int
) -> None:
    whole = tmp_path / "whole"
    finished(whole)
    folder = tmp_path / "store"
    interrupted(folder, after)
    with pytest.raises(ArtifactError, match=r"index.json is missing"):
        LogitReader(folder)
    done = finished(folder)
    assert contents(folder) == contents(whole)
    assert done == IDS[: len(done)] and (after < len(IDS) or done)


def test_what_is_there_stays_until_it_is_replaced(tmp_path: Path) -> None:
    folder = write(tmp_path / "store")
    before = contents(folder)
    interrupted(folder, 3)
    assert contents(folder) == before
    finished(folder)
    discard_partial(folder)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["store"]


def test_an_unfinished_folder_does_not_read_as_a_store(tmp_path: Path) -> None:
    partial = interrupted(tmp_path / "store", 4)
    assert shards(partial)
    with pytest.raises(ArtifactError, match=r"index.json is missing"):
        LogitReader(partial)


@pytest.mark.parametrize(
    "change", [{"fingerprint": "g"}, {"fingerprint": None}, {"epsilon": 0.04}, {"ids": False}]
)
def test_what_other_settings_left_is_not_continued(tmp_path: Path, change: dict[str, Any]) -> None:
    folder = tmp_path / "store"
    interrupted(folder, 4)
    assert finished(folder, **change) == []
    finished(tmp_path / "whole", **change)
    assert contents(folder) == contents(tmp_path / "whole")


def test_a_damaged_unfinished_shard_and_those_behind_it_are_written_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    finished(tmp_path / "whole", shard_entries=1)
    partial = interrupted(tmp_path / "store", 4, shard_entries=1)
    victim = shards(partial)[1]
    victim.write_bytes(victim.read_bytes()[:-1])
    (partial / "shard-00007.safetensors").write_bytes(b"left over")
    assert finished(tmp_path / "store", shard_entries=1) == IDS[:1]
    assert f"warning: {victim} is damaged" in capsys.readouterr().err
    assert contents(tmp_path / "store") == contents(tmp_path / "whole")


@pytest.mark.parametrize("text", ["", "{", "[]", '{"shards": [{}]}'])
def test_a_damaged_journal_means_from_the_beginning(tmp_path: Path, text: str) -> None:
    partial = interrupted(tmp_path / "store", 4)
    (partial / JOURNAL).write_text(text)
    assert finished(tmp_path / "store") == []
    finished(tmp_path / "whole")
    assert contents(tmp_path / "store") == contents(tmp_path / "whole")


def test_a_second_writer_is_refused_and_harms_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "store"
    with LogitWriter(folder, **SETTINGS) as writer:
        writer.add("b", **example("b"))
        with pytest.raises(
            ArtifactError,
            match=r"process \d+ on .+ is writing this, and holds .*\.store\.writer\.lock",
        ):
            finished(folder)
        for row_id in IDS[1:]:
            writer.add(row_id, **example(row_id))
    finished(tmp_path / "whole")
    assert contents(folder) == contents(tmp_path / "whole")
    finished(folder)  # the lock is free again


def stop_at(monkeypatch: pytest.MonkeyPatch, moment: str, folder: Path) -> None:
    """Kill whoever finishes the store `folder` at a moment of that."""
    rename, index = Path.replace, writing.write_index

    def renamed(source: Path, target: Path) -> Path:
        if (source, moment) == (folder, "before it moves the former store aside"):
            raise Stop
        if target == folder and moment == "between the renames":
            raise Stop
        done = rename(source, target)
        if target == folder and moment == "after the store took its place":
            raise Stop
        return done

    def indexed(*given: Any) -> None:
        if moment == "before the index":
            raise Stop
        index(*given)
        if moment == "after the index":
            raise Stop

    monkeypatch.setattr(Path, "replace", renamed)
    monkeypatch.setattr(writing, "write_index", indexed)


@pytest.mark.parametrize(
    "moment",
    [
        "before the index",
        "after the index",
        "before it moves the former store aside",
        "between the renames",
        "after the store took its place",
    ],
)
def test_a_writer_that_is_killed_while_it_finishes_loses_no_row(
    tmp_path: Path, moment: str
) -> None:
    folder = write(tmp_path / "store", ["a"])
    with pytest.MonkeyPatch.context() as monkeypatch, pytest.raises(Stop):
        stop_at(monkeypatch, moment, folder)
        finished(folder)
    done = finished(folder)
    assert done == IDS
    finished(tmp_path / "whole", fingerprint=None)
    assert contents(folder) == contents(tmp_path / "whole")
    discard_partial(folder)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["store", "whole"]


@pytest.mark.parametrize("links", [True, False])
def test_a_store_that_was_deleted_as_half_done_comes_back_until_it_is_settled(
    tmp_path: Path, links: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not links:
        monkeypatch.setattr(os, "link", no_links)
    folder = tmp_path / "store"
    finished(folder)
    whole = contents(folder)
    shutil.rmtree(folder)
    assert finished(folder) == (IDS if links else [])
    assert contents(folder) == whole
    discard_partial(folder)
    assert finished(folder) == [] and contents(folder) == whole


def no_links(*_: object, **__: object) -> None:
    raise OSError(errno.EPERM, "no links here")


def test_a_writer_without_a_fingerprint_leaves_nothing_beside_its_store(tmp_path: Path) -> None:
    finished(tmp_path / "store", fingerprint=None)
    assert [path.name for path in tmp_path.iterdir()] == ["store"]


def test_a_store_is_read_before_it_takes_its_place(tmp_path: Path) -> None:
    folder = tmp_path / "store"
    with LogitWriter(folder, **SETTINGS) as writer:
        writer.add("b", **example("b"))
        reader = writer.finish()
        assert reader.ids == ["b"] and len(reader["b"]) == 2 and not folder.exists()
    assert LogitReader(folder).ids == ["b"]


WRITER = """
import json, os, signal, sys
from pathlib import Path
from kd.logits import LogitWriter
from tests.logits.stores import IDS, example
settings = json.loads(sys.argv[2])
with LogitWriter(Path(sys.argv[1]), **settings) as writer:
    for row_id in IDS[:4]:
        writer.add(row_id, **example(row_id))
    print("written", flush=True)
    sys.stdin.read()
"""


def test_the_lock_of_a_killed_process_is_free_and_its_shards_are_kept(tmp_path: Path) -> None:
    folder = tmp_path / "store"
    command = [sys.executable, "-c", WRITER, str(folder), json.dumps(SETTINGS)]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, text=True
    )
    assert process.stdout is not None and process.stdout.readline() == "written\n"
    with pytest.raises(
        ArtifactError, match=r"process \d+ on .+ is writing this, and holds .*\.store\.writer\.lock"
    ):
        finished(folder)
    process.kill()
    process.communicate()
    assert len(finished(folder)) > 1
    finished(tmp_path / "whole")
    assert contents(folder) == contents(tmp_path / "whole")
