"""Minimum edit distance: token strings pair both answers, and both vocabularies."""

from collections.abc import Sequence
from math import inf

import numpy as np
import torch
from numpy.typing import NDArray
from rapidfuzz.distance import Levenshtein
from rapidfuzz.process import cdist
from torch import Tensor, nn

from kd.losses.declaration import loss
from kd.losses.probabilities import expectation
from kd.losses.rows import AnswerRows
from kd.losses.setup import Vocabularies
from kd.losses.teacher import Teacher, TopKRows

UNMAPPED = 2**31 - 1  # stands for no token; larger than any vocabulary
NO_TEXT = "\N{REPLACEMENT CHARACTER}"  # one character, for distances from tokens without a text
ROWS = 256  # of the distances between vocabularies that are in memory at once

Integers = NDArray[np.int64]


@loss(
    "mined",
    family="token mapping",
    same_vocabulary=False,
    truncation="unbounded",
    formula=r"\sum_v r_v \ln \frac{r_v}{q_v}, \quad r_v \propto \max_{t : m(t) = v} p_t",
    source="Wan et al., arXiv 2401.10491 (token alignment); port: Zhang et al., arXiv 2406.17328",
    alignments=("student",),
)
class MinimumEditDistance(nn.Module):
    """KL(r || q) of the student q and the teacher's distribution r, moved by edit distance.

    Answers are paired by dynamic time warping of their tokens' texts: a path from the first
    tokens of both sides to the last ones, forward by one token on either side or both, of the
    least sum of edit distances. Spaces do not count there. Among steps of equal cost, traced
    from the end, both sides come first and then the teacher's alone. Vocabularies are paired
    as well: every token t of the teacher is mapped to the student's token m(t) at the least
    edit distance, spaces included; of several, the one of the lowest id.

    A student's token y with exactly one partner, which is mapped to y, is taught the
    partner's distribution: r_v is the largest probability that is mapped to v, normalised.
    Every other token is taught itself: r_y is 1 and the value -ln q_y. There is a row for each
    answer token of the student, whatever the lengths of both answers.

    What is paired are the tokens that both sides *predict*. The port pairs the tokens before
    them, after which different tokens may follow.

    It is 0 for identical models over a vocabulary of distinct texts. Tokens without a text
    (special ones, parts of a character) are mapped to none and taught as themselves. Loading
    it compares every two tokens of different text (seconds for 50,000 tokens a side), and each
    step every two tokens of a sequence's two answers.

    Top-k teacher: r is normalised over what is stored and mapped. The error has no bound: a
    dropped token may be the only one that is mapped to v, and r_v is 0 then.
    """

    def __init__(self, vocabularies: Vocabularies) -> None:
        super().__init__()
        self._student = _without_spaces(vocabularies.student)
        self._teacher = _without_spaces(vocabularies.teacher)
        self._map: Tensor
        mapping = torch.tensor(nearest_tokens(vocabularies.teacher, vocabularies.student))
        self.register_buffer("_map", mapping, persistent=False)

    def forward(self, answers: AnswerRows) -> Tensor:
        """KL(r || q) of each of the student's answer tokens, [N]."""
        log_q = answers.student.log_softmax(dim=-1)
        partners = self._partners(answers)
        (taught,) = (partners >= 0).nonzero(as_tuple=True)
        moved = self._move(_select(answers.teacher, partners[taught]), log_q.shape[-1])
        known = (moved > -torch.inf).any(dim=-1)  # of a top-k, perhaps nothing is mapped
        taught, log_r = taught[known], moved[known].log_softmax(dim=-1)
        itself = -log_q.gather(-1, answers.student_tokens[:, None])[:, 0]
        values = itself.index_put((taught,), expectation(log_r, log_r - log_q[taught]))
        compared = answers.teacher_lengths > 0  # as under alignment 'student'
        return values[compared.repeat_interleave(answers.student_lengths)]

    def _partners(self, answers: AnswerRows) -> Tensor:
        """Which of the teacher's rows each of the student's is taught, [Ms]; -1 for none."""
        own, other = answers.student_tokens, answers.teacher_tokens
        student = torch.split(own.cpu(), answers.student_lengths.tolist())
        teacher = torch.split(other.cpu(), answers.teacher_lengths.tolist())
        found: list[int] = []
        before = 0
        for tokens, others in zip(student, teacher, strict=True):
            costs = edit_distances(
                [self._student.get(token, NO_TEXT) for token in tokens.tolist()],
                [self._teacher.get(token, NO_TEXT) for token in others.tolist()],
            )
            found += [-1 if place is None else before + place for place in only_partners(costs)]
            before += len(others)
        partners = torch.tensor(found, device=own.device)
        mapped = self._mapped(other[partners.clamp(min=0)])
        return partners.where(mapped == own, -1)

    def _mapped(self, tokens: Tensor) -> Tensor:
        """The student's tokens to which the teacher's are mapped."""
        last = len(self._map) - 1  # logits may have columns beyond, of no token
        return self._map[tokens.clamp(max=last)].masked_fill(tokens > last, UNMAPPED)

    def _move(self, teacher: Teacher, width: int) -> Tensor:
        """Logarithm of the largest probability that is mapped to each token, [N, width]."""
        if isinstance(teacher, TopKRows):
            ids, log_probs = teacher.ids, teacher.log_probs
        else:
            ids = torch.arange(teacher.shape[-1], device=teacher.device).expand_as(teacher)
            log_probs = teacher.log_softmax(dim=-1)
        goals = self._mapped(ids).clamp(max=width)  # what is mapped to none goes to a last column
        nothing = log_probs.new_full((len(log_probs), width + 1), -torch.inf)
        return nothing.scatter_reduce(-1, goals, log_probs, "amax")[:, :width]


def nearest_tokens(tokens: Sequence[str | None], others: Sequence[str | None]) -> list[int]:
    """The id of the nearest of the `others` for each of the `tokens`, `UNMAPPED` without text."""
    ids = [number for number, text in enumerate(others) if text is not None]
    texts = [text for text in tokens if text is not None]
    if not ids:
        return [UNMAPPED] * len(tokens)
    places = iter(nearest_texts(texts, [others[number] or "" for number in ids]))
    return [UNMAPPED if text is None else ids[next(places)] for text in tokens]


def edit_distances(first: Sequence[str], second: Sequence[str]) -> Integers:
    """Levenshtein's distances between all texts of two lists, [len(first), len(second)]."""
    return cdist(first, second, scorer=Levenshtein.distance, dtype=np.int64)


def nearest_texts(texts: Sequence[str], candidates: Sequence[str]) -> list[int]:
    """For each text the place of the nearest of the `candidates`; of several, the first."""
    found = {text: place for place, text in reversed(list(enumerate(candidates)))}
    others = sorted(set(texts) - set(found))
    for start in range(0, len(others), ROWS):
        part = others[start : start + ROWS]
        places = edit_distances(part, candidates).argmin(axis=1)
        found |= zip(part, places.tolist(), strict=True)
    return [found[text] for text in texts]


def only_partners(costs: Integers) -> list[int | None]:
    """The column that is the only one which the warping path gives to each row, or None."""
    partners: list[list[int]] = [[] for _ in costs]
    for row, column in warping_path(costs):
        partners[row].append(column)
    return [columns[0] if len(columns) == 1 else None for columns in partners]


def warping_path(costs: Integers) -> list[tuple[int, int]]:
    """Cells of the cheapest monotonic path through `costs` [rows, columns], last one first."""
    if not costs.size:
        return []
    total = [[0.0] + [inf] * costs.shape[1]]
    for row in costs.tolist():
        line = [inf]
        for before, above, cost in zip(total[-1], total[-1][1:], row, strict=False):
            line.append(cost + min(before, above, line[-1]))
        total.append(line)
    row, column = costs.shape
    path = [(row - 1, column - 1)]
    while (row, column) != (1, 1):
        # In this order, since the first of equal ones is taken.
        steps = [(row - 1, column - 1), (row, column - 1), (row - 1, column)]
        row, column = min(steps, key=lambda cell: total[cell[0]][cell[1]])
        path.append((row - 1, column - 1))
    return path


def _without_spaces(texts: Sequence[str | None]) -> dict[int, str]:
    return {number: text.replace(" ", "") for number, text in enumerate(texts) if text is not None}


def _select(teacher: Teacher, rows: Tensor) -> Teacher:
    if isinstance(teacher, TopKRows):
        dropped = teacher.dropped[rows]
        return TopKRows(teacher.ids[rows], teacher.log_probs[rows], dropped, teacher.vocabulary)
    return teacher[rows]
