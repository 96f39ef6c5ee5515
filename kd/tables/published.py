"""A paper's own figures, to be shown beside ours.

A csv of numbers only: dataset, teacher, student, fraction, column, value, source, note.
`column` is one of the table's (teacher_score, native, or a method).
"""

import csv
from pathlib import Path
from typing import Any

from kd.errors import ArtifactError

_REQUIRED = ("dataset", "teacher", "student", "fraction", "column", "value", "source")

Key = tuple[str, str, str, int, str]


def read_published(path: Path) -> dict[Key, float]:
    """Published values in percent, by (dataset, teacher, student, fraction, column).

    Raises:
        ArtifactError: the file is missing, lacks a column, or a value is no number.
    """
    try:
        with path.open(encoding="utf-8", newline="") as file:
            records = list(csv.DictReader(file))
    except OSError:
        raise ArtifactError(f"{path}: no such file of published scores.") from None
    found: dict[Key, float] = {}
    for number, record in enumerate(records, start=2):
        missing = [column for column in _REQUIRED if not record.get(column)]
        if missing:
            raise ArtifactError(f"{path}, line {number}: '{missing[0]}' is missing.")
        try:
            found[_key(record)] = float(record["value"])
        except ValueError:
            raise ArtifactError(
                f"{path}, line {number}: 'value' and 'fraction' must be numbers."
            ) from None
    return found


def _key(record: dict[str, Any]) -> Key:
    return (
        record["dataset"],
        record["teacher"],
        record["student"],
        int(record["fraction"]),
        record["column"],
    )
