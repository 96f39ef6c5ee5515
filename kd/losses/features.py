"""Hidden states and attentions of both models, for losses that compare more than outputs."""

from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

from kd.alignment import Alignment
from kd.errors import LossError
from kd.losses.answers import Answers, first_of_each
from kd.losses.options import require_share

Layer = TypeVar("Layer")


@dataclass(frozen=True)
class ModelFeatures:
    """What one model computed on its side of the batch; empty where it was not asked for.

    Of an encoder-decoder, the decoder's hidden states and its attention to itself.
    """

    hidden: tuple[Tensor, ...]  # per layer, embeddings first: [B, T, D]
    attentions: tuple[Tensor, ...] = ()  # per layer: [B, heads, T, T]


@dataclass(frozen=True)
class Features:
    """Both models' features. No gradient flows into the teacher's."""

    student: ModelFeatures
    teacher: ModelFeatures


@dataclass(frozen=True)
class AlignedFeatures:
    """Features with the places at which they are compared: those that predict N paired tokens.

    They come in float32, or in float64 if that is their own type.
    """

    features: Features
    own: Answers
    other: Answers
    pairs: Alignment

    def hidden(self, layer: float) -> tuple[Tensor, Tensor]:
        """Hidden states [N, Ds] and [N, Dt] of both sides at paired positions.

        Args:
            layer: share of the depth, 0 for the embeddings and 1 for the last layer: models of
                different depth are compared at the same share.

        Raises:
            LossError: it is no share, or there are no hidden states.
        """
        own, other = self.positions()
        student, teacher = self._hidden(layer)
        sequence = self.pairs.sequence
        return _precise(student[sequence, own]), _precise(teacher[sequence, other])

    def answer_hidden(self, layer: float) -> tuple[Tensor, Tensor]:
        """Hidden states [Ms, Ds] and [Mt, Dt] of both sides at all answer tokens, as `hidden`."""
        student, teacher = self._hidden(layer)
        return (
            _precise(student[self.own.sequence, self.own.position]),
            _precise(teacher[self.other.sequence, self.other.position]),
        )

    def attention(self, layer: float) -> tuple[Tensor, Tensor]:
        """How much both sides' paired positions attend to one another, [N, C] and [N, C].

        Row n is the attention of position n to the at most C paired positions of its own
        sequence, in their order and 0 beyond, as a mean over heads. It sums to less than 1 by
        what goes to all other positions.

        Args:
            layer: share of the depth, 0 for the first layer and 1 for the last.

        Raises:
            LossError: it is no share, or there are no attentions.
        """
        own, other = self.positions()
        student = at_depth("attentions", self.features.student.attentions, layer)
        teacher = at_depth("attentions", self.features.teacher.attentions, layer).detach()
        sequence = self.pairs.sequence
        return _among(student, sequence, own), _among(teacher, sequence, other)

    def positions(self) -> tuple[Tensor, Tensor]:
        """Positions [N] and [N], in each side's own sequence, that predict the paired tokens."""
        sequence = self.pairs.sequence
        return (
            self.own.position[self.own.index(sequence, self.pairs.student)],
            self.other.position[self.other.index(sequence, self.pairs.teacher)],
        )

    def _hidden(self, layer: float) -> tuple[Tensor, Tensor]:
        student = at_depth("hidden states", self.features.student.hidden, layer)
        return student, at_depth("hidden states", self.features.teacher.hidden, layer).detach()


def at_depth(kind: str, layers: tuple[Layer, ...], share: float) -> Layer:
    """The layer at a share of the depth, 0 for the first entry and 1 for the last.

    Raises:
        LossError: the share is not between 0 and 1, or a model gave nothing of this `kind`.
    """
    require_share("layer", share)
    if not layers or layers[0] is None:
        raise LossError(
            f"this loss reads {kind}, which a model did not return. A transformers model returns "
            "attentions only when it is loaded with attn_implementation='eager'."
        )
    return layers[round(share * (len(layers) - 1))]


def _among(attention: Tensor, sequence: Tensor, position: Tensor) -> Tensor:
    """Attention [B, heads, T, T] of N positions to those of the same sequence, [N, C]."""
    counts = sequence.bincount(minlength=len(attention))
    place = torch.arange(len(sequence), device=sequence.device) - first_of_each(counts)[sequence]
    columns = position.new_zeros(len(counts), int(counts.max()))
    columns[sequence, place] = position
    rows = _precise(attention[sequence, :, position]).mean(dim=1)  # [N, T]
    beyond = torch.arange(columns.shape[1], device=sequence.device) >= counts[sequence][:, None]
    return rows.gather(-1, columns[sequence]).masked_fill(beyond, 0.0)


def _precise(values: Tensor) -> Tensor:
    return values.to(torch.promote_types(values.dtype, torch.float32))
