"""Prompts that fit a model's context.

A prompt that is too long loses its examples, the last first; where its question alone is too long
still, the context loses its end. What was lost is recorded row by row, so that the prompt can be
written again without the model.
"""

from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from kd.data.prompts import WritePrompt
from kd.data.rows import Row
from kd.errors import ArtifactError


class Shortened(BaseModel):
    """What a row's prompt kept: the first `shots` examples, the first `characters` of its context.

    `characters` is None where the whole context stayed.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    shots: int
    characters: int | None = None

    def write(self, row: Row, shots: Sequence[Row], write: WritePrompt) -> str:
        """The prompt of `row`, shortened."""
        if self.characters is not None:
            row = row.model_copy(update={"context": row.context[: self.characters]})
        return write(row, shots[: self.shots])


Fits = Callable[[str], bool]


def with_fewer_shots(
    row: Row, shots: Sequence[Row], write: WritePrompt, fits: Fits
) -> Shortened | None:
    """As many of the examples `shots` as fit before `row`; None if it does not fit on its own."""
    counts = range(len(shots), -1, -1)
    tried = (Shortened(shots=count) for count in counts)
    return next((kept for kept in tried if fits(kept.write(row, shots, write))), None)


def with_less_context(row: Row, write: WritePrompt, fits: Fits) -> Shortened | None:
    """As much of the context of `row` as fits without examples; None if nothing of it does."""

    def too_long(characters: int) -> bool:
        return not fits(Shortened(shots=0, characters=characters).write(row, [], write))

    characters = bisect_right(range(len(row.context)), False, lo=1, key=too_long) - 1
    # Fewer characters can be more tokens, where a word is cut in two.
    while characters > 0 and too_long(characters):
        characters -= 1
    return Shortened(shots=0, characters=characters) if characters > 0 else None


def fitting_prompts(
    rows: Sequence[Row], shots: Sequence[Row], write: WritePrompt, fits: Fits
) -> tuple[list[str], dict[str, Shortened]]:
    """The prompts of `rows`, and by a row's id what is left of those that had to be shortened.

    A prompt that fits in no way is left as it is.
    """
    prompts, shortened = [], {}
    for row in rows:
        whole = Shortened(shots=len(shots))
        kept = with_fewer_shots(row, shots, write, fits) or with_less_context(row, write, fits)
        kept = kept or whole
        prompts.append(kept.write(row, shots, write))
        if kept != whole:
            shortened[row.id] = kept
    return prompts, shortened


def shortening_note(shortened: Mapping[str, Shortened]) -> dict[str, object]:
    """What a manifest notes of prompts that were shortened: nothing, where there are none."""
    if not shortened:
        return {}
    return {"shortened": {name: kept.model_dump() for name, kept in sorted(shortened.items())}}


def shortening_noted(notes: Mapping[str, object]) -> dict[str, Shortened]:
    """The way back from the notes of a manifest.

    Raises:
        ArtifactError: they are malformed.
    """
    try:
        return TypeAdapter(dict[str, Shortened]).validate_python(notes.get("shortened", {}))
    except ValidationError:
        raise ArtifactError(
            "its manifest's note 'shortened' is malformed. Delete the artifact and make it again."
        ) from None
