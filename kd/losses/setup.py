"""What a loss may be given once, before training. See `kd.losses.needs.SETUP`."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from kd.errors import LossError


@dataclass(frozen=True)
class Vocabularies:
    """The text of every token of both vocabularies.

    Token strings are what the token contributes to the text, with the marks of its tokenizer
    ('Ġ', '▁', '##') resolved; special tokens and bytes that are no text have the string None.
    """

    student: Sequence[str | None]
    teacher: Sequence[str | None]


@dataclass(frozen=True)
class Embeddings:
    """Embeddings of both vocabularies in one common space of D dimensions."""

    student: Tensor  # [Vs, D]
    teacher: Tensor  # [Vt, D]


@dataclass(frozen=True)
class ModelSide:
    """Sizes and output layer of one model: logits are scale * hidden states @ output.T.

    `output` is the model's own parameter, not a copy of it: a loss detaches it whenever it
    reads it, so that it never trains it and always sees what training has made of it.
    """

    hidden_sizes: tuple[int, ...]  # of the entries of `ModelFeatures.hidden`
    output: Tensor  # [V, D], weight of the layer that gives logits
    scale: float = 1.0  # of the last hidden states: D ** -0.5 in a T5 with tied embeddings
    plain: bool = True  # whether logits are nothing but that product (no bias, no soft cap)

    def require_plain(self, loss: str) -> None:
        """Refuse an output layer that the weight alone does not describe.

        Raises:
            LossError: logits are more than the product.
        """
        if not self.plain:
            raise LossError(
                f"loss '{loss}' reads hidden states out by the weight of the output layer, but in "
                "one of these models logits are more than that product (a bias, a soft cap)."
            )


@dataclass(frozen=True)
class Models:
    """Sizes and output layers of both models."""

    student: ModelSide
    teacher: ModelSide


@dataclass(frozen=True)
class Setup:
    """All that losses may need once; None where the caller has nothing to give."""

    vocabularies: Vocabularies | None = None
    embeddings: Embeddings | None = None
    models: Models | None = None
    total_steps: int | None = None

    def require(self, loss: str, need: str) -> Any:
        """The field called `need`.

        Raises:
            LossError: it was not given.
        """
        value = getattr(self, need)
        if value is None:
            raise LossError(f"loss '{loss}' needs '{need}': pass setup=Setup({need}=...).")
        return value
