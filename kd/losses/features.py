"""Hidden states and attentions of both models, for losses that compare more than outputs."""

from dataclasses import dataclass

from torch import Tensor

from kd.alignment import Alignment
from kd.losses.answers import Answers


@dataclass(frozen=True)
class ModelFeatures:
    """What one model computed on its side of the batch; empty where it was not asked for."""

    hidden: tuple[Tensor, ...]  # per layer, embeddings first: [B, T, D]
    attentions: tuple[Tensor, ...] = ()  # per layer: [B, heads, T, T]


@dataclass(frozen=True)
class Features:
    """Both models' features. No gradient flows into the teacher's."""

    student: ModelFeatures
    teacher: ModelFeatures


@dataclass(frozen=True)
class AlignedFeatures:
    """Features with the places at which they are compared: those that predict N paired tokens."""

    features: Features
    own: Answers
    other: Answers
    pairs: Alignment

    def hidden(self, layer: float) -> tuple[Tensor, Tensor]:
        """Hidden states [N, Ds] and [N, Dt] of both sides at paired positions.

        Args:
            layer: share of the depth, 0 for the embeddings and 1 for the last layer: models of
                different depth are compared at the same share.
        """
        own, other = self.positions()
        student = at_depth(self.features.student.hidden, layer)
        teacher = at_depth(self.features.teacher.hidden, layer).detach()
        sequence = self.pairs.sequence
        return student[sequence, own], teacher[sequence, other]

    def positions(self) -> tuple[Tensor, Tensor]:
        """Positions [N] and [N], in each side's own sequence, that predict the paired tokens."""
        sequence = self.pairs.sequence
        return (
            self.own.position[self.own.index(sequence, self.pairs.student)],
            self.other.position[self.other.index(sequence, self.pairs.teacher)],
        )


def at_depth(layers: tuple[Tensor, ...], share: float) -> Tensor:
    """The layer at a share of the depth, 0 for the first entry and 1 for the last."""
    return layers[round(share * (len(layers) - 1))]
