"""Outputs that appear whole or not at all: written beside their place, then renamed.

A path has one writer at a time (`kd.provenance.locks`), so whatever lies beside it half
written was left by one that was killed.
"""

import glob
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def _staging(path: Path) -> Path:
    # Beside the target, so that the rename stays on one file system.
    path.parent.mkdir(parents=True, exist_ok=True)
    name = glob.escape(f".{path.name}.")
    for suffix in ("partial", "old"):
        for stale in path.parent.glob(f"{name}*.{suffix}"):
            _remove(stale)
    return path.with_name(f".{path.name}.{os.getpid()}.partial")


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _to_disk(file: Path) -> None:
    """Before its name is there: after it, what it was made from may be removed."""
    with file.open("rb") as opened:
        os.fsync(opened.fileno())


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """Yield a temporary path that becomes `path` if the block succeeds, and vanishes if not."""
    staging = _staging(path)
    try:
        yield staging
        _to_disk(staging)
        staging.replace(path)
    finally:
        staging.unlink(missing_ok=True)


@contextmanager
def atomic_directory(path: Path) -> Iterator[Path]:
    """Yield a temporary folder that replaces the folder `path` if the block succeeds."""
    staging = _staging(path)
    staging.mkdir()
    try:
        yield staging
        for file in staging.rglob("*"):
            if file.is_file():
                _to_disk(file)
        # The old folder is moved aside, not deleted first: the gap without any is one rename.
        old = staging.with_suffix(".old")
        if path.exists():
            path.replace(old)
        staging.replace(path)
        shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def write_text(path: Path, text: str) -> None:
    """Write `text` (UTF-8) to `path`, atomically."""
    with atomic_file(path) as staging:
        staging.write_text(text, encoding="utf-8")
