"""Predictions: what a model answered to each test row, and their parquet file."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from kd.errors import ArtifactError
from kd.provenance.files import atomic_file

FinishReason = Literal["newline", "eos", "length"]

SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("prompt_sha256", pa.string()),
        ("prediction", pa.string()),
        ("references", pa.list_(pa.string())),
        ("finish_reason", pa.string()),
        ("tokens", pa.int32()),
        ("confidence", pa.float64()),
    ]
)


class Prediction(BaseModel):
    """One answer. `tokens` counts what was generated, the ending token included.

    `confidence` is the probability of all these tokens; None where it was not recorded.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    id: str
    prompt_sha256: str
    prediction: str
    references: list[str] = Field(min_length=1)
    finish_reason: FinishReason
    tokens: int = Field(ge=0)
    confidence: float | None = Field(default=None, ge=0, le=1)


def write_predictions(predictions: Sequence[Prediction], path: Path) -> None:
    """Write `predictions` as parquet, atomically; the bytes depend on the values alone."""
    records = [prediction.model_dump() for prediction in predictions]
    with atomic_file(path) as staging:
        pq.write_table(pa.Table.from_pylist(records, schema=SCHEMA), staging)


def read_predictions(path: Path) -> list[Prediction]:
    """Read predictions that `write_predictions` wrote.

    Raises:
        ArtifactError: the file is missing, no parquet, or a row of it is malformed.
    """
    if not path.is_file():
        raise ArtifactError(f"{path}: no such file. Run `kd predict` first.")
    try:
        records = pq.read_table(path).to_pylist()
    except pa.ArrowInvalid:
        raise ArtifactError(f"{path}: not a parquet file. Remove it and predict again.") from None
    return [_parse(record, f"{path}, row {n}") for n, record in enumerate(records, start=1)]


def _parse(record: dict[str, object], where: str) -> Prediction:
    try:
        return Prediction.model_validate(record)
    except ValidationError as error:
        problem = error.errors()[0]
        field = ".".join(str(part) for part in problem["loc"])
        raise ArtifactError(
            f"{where}: '{field}': {problem['msg']}. Predict again with `kd predict`."
        ) from None
