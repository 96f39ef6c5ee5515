"""What all blocks of an experiment file share: strictness, and the types of small values."""

import re
from typing import Annotated, Any, ClassVar, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    model_serializer,
)

Score = Literal[
    "f1",
    "exact_match",
    "precision",
    "recall",
    "rouge1",
    "rouge2",
    "rougeL",
    "rougeLsum",
    "bertscore",
    "confidence",
    "brier",
    "ece",
]
WHOLE = ("ece",)  # scores of all examples together: no example has one of its own
Curve = Literal[
    "lowest_validation_ce",
    "last_validation_ce",
    "validation_rise",
    "generalisation_gap",
]

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")


def plain_name(name: str) -> str:
    """Refuse a name that a path or a shell could misread."""
    if not _NAME.fullmatch(name):
        raise ValueError(f"'{name}' is no valid name: use letters, digits, '_' and '-'")
    return name


Name = Annotated[str, Field(min_length=1, max_length=64)]
Positive = Annotated[int, Field(gt=0)]
Natural = Annotated[int, Field(ge=0)]
Rate = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Percent = Annotated[int, Field(gt=0, le=100)]


class Strict(BaseModel):
    """Base of all blocks: unknown keys and silent conversions are refused."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Grown(Strict):
    """A block to which keys were added: where they have their defaults, they are not written.

    A specification from before such a key was known stays what it is, and so does what was made
    from it.
    """

    later: ClassVar[frozenset[str]] = frozenset()

    @model_serializer(mode="wrap")
    def _without_defaults(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        fields = type(self).model_fields
        return {
            name: value
            for name, value in write(self).items()
            if name not in self.later or getattr(self, name) != fields[name].default
        }
