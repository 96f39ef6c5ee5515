"""What it costs to move probability from a teacher's token to a student's, between 0 and 1.

Costs are computed for the tokens at hand, never for two whole vocabularies: 50,000 tokens on
each side would have 2.5 billion.
"""

from collections.abc import Sequence

import numpy as np
import torch
from rapidfuzz.distance import Levenshtein
from rapidfuzz.process import cdist
from torch import Tensor

from kd.losses.setup import Embeddings, Vocabularies


def rank_costs(teacher: Tensor, student: Tensor) -> Tensor:
    """0 between tokens of the same rank and 1 between others, [N, B, A] for ids [N, B], [N, A].

    The ids are not read: they are ordered by rank.
    """
    places = [torch.arange(side.shape[1], device=side.device) for side in (teacher, student)]
    differ = places[0][:, None] != places[1]
    return differ.double().expand(len(teacher), -1, -1)


class EditDistanceCosts:
    """Edit distance of two tokens' texts as a share of the longer text's length.

    The distance is Levenshtein's: insertions, deletions and substitutions of characters.
    Tokens without a text (special ones, parts of a character, columns beyond the vocabulary)
    cost 0 among themselves and 1 with any other: the ends of text of both sides have none.
    """

    def __init__(self, vocabularies: Vocabularies) -> None:
        self._student = vocabularies.student
        self._teacher = vocabularies.teacher

    def __call__(self, teacher: Tensor, student: Tensor) -> Tensor:
        """Costs [N, B, A] of ids [N, B] and [N, A]."""
        rows = zip(teacher.tolist(), student.tolist(), strict=True)
        costs = [
            relative_edit_distances(_texts(self._teacher, other), _texts(self._student, own))
            for other, own in rows
        ]
        return torch.stack(costs).to(teacher.device)


def _texts(vocabulary: Sequence[str | None], ids: list[int]) -> list[str | None]:
    return [vocabulary[token] if token < len(vocabulary) else None for token in ids]


def relative_edit_distances(first: Sequence[str | None], second: Sequence[str | None]) -> Tensor:
    """Edit distances by the longer text's length, [len(first), len(second)] float64."""
    distances = cdist(
        [text or "" for text in first],
        [text or "" for text in second],
        scorer=Levenshtein.normalized_distance,
        dtype=np.float64,
    )
    without, without_too = (
        np.array([text is None for text in texts], dtype=bool) for texts in (first, second)
    )
    apart = without[:, None] != without_too
    distances[apart] = 1.0
    return torch.from_numpy(distances)


class EmbeddingCosts(torch.nn.Module):
    """Euclidean distance of two tokens' embeddings as a share of the largest possible one.

    That is R_s + R_t, the radii of both vocabularies around the mean m of the teacher's: no
    two tokens are further apart, by way of m, and finding it takes no pass over all pairs.
    Columns beyond a vocabulary stand at m.
    """

    def __init__(self, embeddings: Embeddings) -> None:
        super().__init__()
        centre = embeddings.teacher.detach().mean(dim=0, keepdim=True)
        student, teacher = (
            torch.cat([side.detach() - centre, torch.zeros_like(centre)])
            for side in (embeddings.student, embeddings.teacher)
        )
        reach = sum(float(side.norm(dim=1).max()) for side in (student, teacher)) or 1.0
        self._student: Tensor
        self._teacher: Tensor
        self.register_buffer("_student", student / reach, persistent=False)
        self.register_buffer("_teacher", teacher / reach, persistent=False)

    def forward(self, teacher: Tensor, student: Tensor) -> Tensor:
        """Costs [N, B, A] of ids [N, B] and [N, A]."""
        other, own = _rows(self._teacher, teacher), _rows(self._student, student)
        # Exactly 0 for equal embeddings, which a product of matrices would not give.
        return torch.cdist(other, own, compute_mode="donot_use_mm_for_euclid_dist")


def _rows(embeddings: Tensor, ids: Tensor) -> Tensor:
    return embeddings[ids.clamp(max=len(embeddings) - 1)]
