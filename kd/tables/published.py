"""A paper's own figures, to be shown beside ours.

A csv of numbers only: dataset, teacher, student, fraction, column, metric, value, source, note.
`column` is one of the table's (teacher_score, native, or a method).
"""

import csv
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Any

from kd.errors import ArtifactError
from kd.tables.cells import Line

_REQUIRED = ("dataset", "teacher", "student", "fraction", "column", "metric", "value", "source")

Key = tuple[str, str, str, int, str, str]
"""Dataset, teacher, student, fraction, column, metric."""


@dataclass(frozen=True)
class Published:
    """A published value in percent, where it stands, and what is to be known of it."""

    value: float
    source: str
    note: str = ""


def read_published(path: Path) -> dict[Key, Published]:
    """Published values by dataset, teacher, student, fraction, column and metric.

    Raises:
        ArtifactError: the file is missing, lacks a column, a value is no number, or a cell
            stands there twice.
    """
    try:
        with path.open(encoding="utf-8", newline="") as file:
            records = list(csv.DictReader(file))
    except OSError:
        raise ArtifactError(f"{path}: no such file of published scores.") from None
    found: dict[Key, Published] = {}
    for number, record in enumerate(records, start=2):
        missing = [column for column in _REQUIRED if not record.get(column)]
        if missing:
            raise ArtifactError(f"{path}, line {number}: '{missing[0]}' is missing.")
        try:
            key, value = _key(record), float(record["value"])
            if not isfinite(value):
                raise ValueError
        except ValueError:
            raise ArtifactError(
                f"{path}, line {number}: 'value' and 'fraction' must be numbers."
            ) from None
        if key in found:
            raise ArtifactError(f"{path}, line {number}: {' '.join(map(str, key))} stands twice.")
        found[key] = Published(value, record["source"], record.get("note") or "")
    return found


def published_key(line: Line, column: str) -> Key:
    """The key of what a paper would say in a column of our line."""
    place = line.place
    return (
        place.dataset,
        place.teacher,
        place.student,
        place.fraction,
        line.method(column),
        line.metric,
    )


def _key(record: dict[str, Any]) -> Key:
    return (
        record["dataset"],
        record["teacher"],
        record["student"],
        int(record["fraction"]),
        record["column"],
        record["metric"],
    )
