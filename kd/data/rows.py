"""Rows: the one shape all datasets take, and their parquet files."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict, ValidationError, field_validator

from kd.errors import DataError
from kd.provenance.files import atomic_file

SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("task", pa.string()),
        ("title", pa.string()),
        ("context", pa.string()),
        ("question", pa.string()),
        ("answers", pa.list_(pa.string())),
    ]
)


class Row(BaseModel):
    """One example. `answers` holds every reference; the first is the training target."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    id: str
    task: str
    title: str = ""
    context: str
    question: str = ""
    answers: list[str]

    @field_validator("id", "context")
    @classmethod
    def _not_blank(cls, value: str) -> str:
        if not value.strip():
            raise ValueError("must not be empty")
        return value

    @field_validator("answers")
    @classmethod
    def _has_answers(cls, value: list[str]) -> list[str]:
        if not value or not all(answer.strip() for answer in value):
            raise ValueError("must hold at least one answer and no empty one")
        return value


def parse_rows(records: Sequence[dict[str, Any]], where: str) -> list[Row]:
    """Validate `records`; errors name `where` and the row number, counted from 1.

    Raises:
        DataError: a malformed row, a duplicate id, or no rows at all.
    """
    rows: list[Row] = []
    first_seen: dict[str, int] = {}
    for number, record in enumerate(records, start=1):
        try:
            row = Row.model_validate(record)
        except ValidationError as error:
            problem = error.errors()[0]
            field = ".".join(str(part) for part in problem["loc"])
            raise DataError(
                f"{where}, row {number}: '{field}' {problem['msg'].removeprefix('Value error, ')}. "
                "Mend or remove the row."
            ) from None
        if row.id in first_seen:
            raise DataError(
                f"{where}, row {number}: id '{row.id}' already stands in row {first_seen[row.id]}. "
                "Ids must be unique within a split."
            )
        first_seen[row.id] = number
        rows.append(row)
    if not rows:
        raise DataError(f"{where}: no rows. Point the dataset at a file that has some.")
    return rows


def write_rows(rows: Sequence[Row], path: Path) -> None:
    """Write `rows` as parquet, atomically."""
    table = pa.Table.from_pylist([row.model_dump() for row in rows], schema=SCHEMA)
    with atomic_file(path) as staging:
        pq.write_table(table, staging)


def read_rows(path: Path) -> list[Row]:
    """Read rows that `write_rows` wrote.

    Raises:
        DataError: the file is missing or its rows are malformed.
    """
    if not path.is_file():
        raise DataError(f"{path}: no such file. Run the data stage first (`kd data --help`).")
    try:
        records = pq.read_table(path).to_pylist()
    except pa.ArrowInvalid:
        raise DataError(f"{path}: not a parquet file. Delete it and run `kd data` again.") from None
    return parse_rows(records, str(path))
