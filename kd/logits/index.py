"""The index of a store: `index.json`, written last, so that a store without it is incomplete."""

import json
from pathlib import Path
from typing import Final, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from kd.errors import ArtifactError
from kd.provenance.canonical import canonical_json
from kd.provenance.files import write_text

INDEX_FILE = "index.json"
SCHEMA_VERSION: Final = 2


class Shard(BaseModel):
    """One safetensors file; its rows stand in the order of `ids`."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    file: str
    bytes: int
    sha256: str
    ids: list[str]


class Index(BaseModel):
    """What a store holds. The position of a row is its place in its shard's `ids`."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    schema_version: Literal[2] = SCHEMA_VERSION
    vocabulary: int
    tokenizer: str | None = None  # digest of the teacher's tokens and their ids
    epsilon: float
    cap: int | None
    dtype: Literal["float32"] = "float32"
    shards: list[Shard]


def write_index(index: Index, folder: Path) -> None:
    """Write `index` into the store `folder`, atomically."""
    write_text(folder / INDEX_FILE, canonical_json(index.model_dump(mode="json")) + "\n")


def read_index(folder: Path) -> Index:
    """Read the index of the store `folder`.

    Raises:
        ArtifactError: no index (the store is missing or incomplete), or one that is malformed
            or of another schema version.
    """
    path = folder / INDEX_FILE
    if not path.is_file():
        raise ArtifactError(
            f"{folder}: no complete teacher-logit store ({INDEX_FILE} is missing). "
            "Run the extraction again (`kd extract --help`)."
        )
    try:
        return Index.model_validate(json.loads(path.read_text(encoding="utf-8")))
    except (ValidationError, ValueError) as error:
        reason = error.errors()[0]["msg"] if isinstance(error, ValidationError) else str(error)
        raise ArtifactError(
            f"{path}: no valid index of schema version {SCHEMA_VERSION} ({reason}). "
            "Run the extraction again (`kd extract --help`)."
        ) from None
