"""The index of a store: `index.json`, written last, so that a store without it is incomplete."""

import json
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from kd.errors import ArtifactError
from kd.logits.selection import ID_BITS
from kd.provenance.canonical import canonical_json, digest
from kd.provenance.files import write_text

Temperature = Annotated[float, Field(gt=0, allow_inf_nan=False)]

INDEX_FILE = "index.json"
SCHEMA_VERSION: Final = 5


class Block(BaseModel):
    """Base of all parts of an index: unknown keys and silent conversions are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Draws(Block):
    """How tokens were drawn, in a store that holds drawn ones."""

    number: Annotated[int, Field(gt=1, lt=1 << 16)]  # 2 at least, to know their variance
    seed: int


class Origin(Block):
    """Where the logits are from: what must be the same for the store to be the right one."""

    model: str | None = None  # SHA-256 of the model's files
    revision: str | None = None  # their commit on the hub, if they are from there
    tokenizer: str | None = None  # digest of the teacher's tokens and their ids
    template: str | None = None  # digest of the prompt templates
    answers: str | None = None  # digest of the answers
    dtype: str = "float32"  # in which the teacher computed


class Shard(Block):
    """One safetensors file; its rows stand in the order of `ids`."""

    file: str
    bytes: int
    sha256: str
    ids: list[str]


class Index(Block):
    """What a store holds. The position of a row is its place in its shard's `ids`."""

    schema_version: Literal[5] = SCHEMA_VERSION
    vocabulary: Annotated[int, Field(ge=1, le=1 << ID_BITS)]
    epsilon: Annotated[float, Field(ge=0, lt=1)]
    cap: Annotated[int, Field(ge=1)] | None
    ids: bool = True  # without them the r-th likeliest token of a row is called r
    precision: Literal["compact", "full"]
    step: float | None = None  # of compact log-probabilities, in nats
    temperatures: list[Temperature] = []  # others than 1 at which the dropped mass is known
    draws: Draws | None = None
    origin: Origin = Origin()
    shards: list[Shard]

    @model_validator(mode="after")
    def _consistent(self) -> "Index":
        if 1.0 in self.temperatures or len(set(self.temperatures)) < len(self.temperatures):
            raise ValueError("temperatures must be distinct, and others than 1")
        if self.draws is not None and (self.temperatures or self.cap is not None):
            raise ValueError("drawn tokens have no cap and no temperatures: leave these out")
        if self.precision == "compact" and self.epsilon == 0 and self.draws is None:
            raise ValueError(
                "compact logits need an epsilon above 0, which bounds how small a kept "
                "probability can be: set one, or store them in full precision"
            )
        return self

    @property
    def tokenizer(self) -> str | None:
        """Digest of the teacher's tokens and their ids."""
        return self.origin.tokenizer


def write_index(index: Index, folder: Path) -> None:
    """Write `index` into the store `folder`, atomically, with the digest of all that it says."""
    content = index.model_dump(mode="json")
    write_text(folder / INDEX_FILE, canonical_json(content | {"digest": digest(content)}) + "\n")


def read_index(folder: Path) -> Index:
    """Read the index of the store `folder`.

    Raises:
        ArtifactError: no index (the store is missing or incomplete), or one that is malformed,
            was altered, or is of another schema version.
    """
    path = folder / INDEX_FILE
    if not path.is_file():
        raise ArtifactError(
            f"{folder}: no complete teacher-logit store ({INDEX_FILE} is missing). "
            "Run the extraction again (`kd extract --help`)."
        )
    try:
        return _validated(json.loads(path.read_text(encoding="utf-8")))
    except (ValidationError, ValueError) as error:
        reason = error.errors()[0]["msg"] if isinstance(error, ValidationError) else str(error)
        raise ArtifactError(
            f"{path}: no valid index of schema version {SCHEMA_VERSION} ({reason}). "
            "Run the extraction again (`kd extract --help`)."
        ) from None


def _validated(content: Any) -> Index:
    if not isinstance(content, dict):
        raise ValueError("it is no JSON object")
    found = content.get("schema_version")
    if found != SCHEMA_VERSION:
        raise ValueError(f"it is of version {found}, which is read no more")
    if content.pop("digest", None) != digest(content):
        raise ValueError("it was altered: its content does not have its digest")
    return Index.model_validate(content)
