"""What MLflow's database says of the runs, read without MLflow and without writing."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kd.errors import ArtifactError


@dataclass(frozen=True)
class TrackedRun:
    """Tags and last metrics of one finished MLflow run."""

    tags: dict[str, str]
    metrics: dict[str, float]


def read_tracked(database: Path) -> dict[str, list[TrackedRun]]:
    """The active runs of a database by their tag `kd.path`; a shared one may hold several.

    Raises:
        ArtifactError: the file is no database of MLflow's.
    """
    try:
        with closing(sqlite3.connect(f"{database.resolve().as_uri()}?mode=ro", uri=True)) as opened:
            return _by_path(opened)
    except sqlite3.Error as error:
        raise ArtifactError(
            f"{database.name}: cannot be read ({error}). Delete it and run `kd track` again."
        ) from None


def _by_path(opened: sqlite3.Connection) -> dict[str, list[TrackedRun]]:
    active = "SELECT run_uuid FROM runs WHERE lifecycle_stage = 'active'"
    runs = {run: TrackedRun({}, {}) for (run,) in opened.execute(active)}
    for run, key, value in _rows(opened, "tags"):
        if run in runs:
            runs[run].tags[key] = str(value)
    for run, key, value in _rows(opened, "latest_metrics"):
        if run in runs:
            runs[run].metrics[key] = float(value)
    found: dict[str, list[TrackedRun]] = {}
    for tracked in runs.values():
        found.setdefault(tracked.tags.get("kd.path", ""), []).append(tracked)
    return found


def _rows(opened: sqlite3.Connection, table: str) -> Iterator[tuple[str, str, Any]]:
    yield from opened.execute(f"SELECT run_uuid, key, value FROM {table}")
