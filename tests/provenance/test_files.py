"""Outputs are on disk before they have their names."""

import os
from pathlib import Path

import pytest

from kd.provenance.files import atomic_directory


def test_a_folder_s_files_are_on_disk_before_it_has_its_name(tmp_path, monkeypatch) -> None:
    synced = []
    real = os.fsync

    def fsync(descriptor: int) -> None:
        synced.append(Path(os.readlink(f"/proc/self/fd/{descriptor}")).name)
        assert not (tmp_path / "model").exists()
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    with atomic_directory(tmp_path / "model") as staging:
        (staging / "inner").mkdir()
        for name in ("weights", "inner/config"):
            (staging / name).write_text(name)
    assert sorted(synced) == ["config", "weights"]
    assert (tmp_path / "model" / "inner" / "config").is_file()


def test_one_that_cannot_reach_the_disk_leaves_the_old_one(tmp_path, monkeypatch) -> None:
    with atomic_directory(tmp_path / "model") as staging:
        (staging / "weights").write_text("old")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="space"), atomic_directory(tmp_path / "model") as staging:
        (staging / "weights").write_text("new")
    assert [file.name for file in tmp_path.iterdir()] == ["model"]
    assert (tmp_path / "model" / "weights").read_text() == "old"
