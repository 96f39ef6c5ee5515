"""The alignment of approximate likelihood matching: smallest pieces of text that both sides cut."""

from collections.abc import Iterator, Sequence
from itertools import pairwise

import torch

from kd.alignment.pairs import Alignment, AnswerTokens
from kd.errors import LossError

Pair = tuple[int, int, int, int]  # the student's first and last token, the teacher's


def chunks(student: AnswerTokens, teacher: AnswerTokens) -> Alignment:
    """Pair the smallest spans of tokens that end at the same byte of the answer on both sides.

    Tokens after the last common end, if there are any, are left out: what they say of the text
    is not comparable.

    Source: Minixhofer et al., arXiv 2503.20083 (aligned chunks).

    Raises:
        LossError: the ends of tokens are missing on one side.
    """
    return pair_texts("chunks", student, teacher, leftovers=False)


def pair_texts(
    name: str, student: AnswerTokens, teacher: AnswerTokens, *, leftovers: bool
) -> Alignment:
    """Pair spans by the bytes at which they end, sequence by sequence.

    Args:
        name: of the alignment, for the refusal.
        student: with ends.
        teacher: with ends.
        leftovers: whether what follows the last common end is one more pair.

    Raises:
        LossError: the ends of tokens are missing on one side.
    """
    found: list[tuple[int, ...]] = []
    sides = zip(_ends(name, "student", student), _ends(name, "teacher", teacher), strict=True)
    for index, (own, other) in enumerate(sides):
        pairs = common_ends(own, other)
        if leftovers:
            pairs = _with_leftovers(pairs, len(own), len(other))
        found += ((index, *pair) for pair in pairs)
    columns = torch.tensor(found, dtype=torch.int64, device=student.lengths.device).reshape(-1, 5)
    sequence, student_first, student_last, teacher_first, teacher_last = columns.unbind(1)
    return Alignment(sequence, student_last, teacher_last, student_first, teacher_first)


def common_ends(student: Sequence[int], teacher: Sequence[int]) -> Iterator[Pair]:
    """The smallest spans that end together, by the never decreasing ends of both sides' tokens.

    The side whose token ends earlier takes the next one, until both end at the same byte.
    """
    own = own_first = other = other_first = 0
    while own < len(student) and other < len(teacher):
        if student[own] < teacher[other]:
            own += 1
        elif student[own] > teacher[other]:
            other += 1
        else:
            yield own_first, own, other_first, other
            own = own_first = own + 1
            other = other_first = other + 1


def _with_leftovers(pairs: Iterator[Pair], student: int, teacher: int) -> Iterator[Pair]:
    own = other = 0
    for pair in pairs:
        yield pair
        own, other = pair[1] + 1, pair[3] + 1
    if own < student and other < teacher:
        yield own, student - 1, other, teacher - 1


def _ends(name: str, side: str, tokens: AnswerTokens) -> list[list[int]]:
    """Ends of each sequence's tokens."""
    if tokens.ends is None:
        stored = ", or TeacherLogits(token_ends=...)" if side == "teacher" else ""
        raise LossError(
            f"alignment '{name}' needs to know where the {side}'s tokens end in the text: "
            f"pass Extras({side}_ends=...){stored}."
        )
    ends, stops = tokens.ends.tolist(), tokens.lengths.cumsum(0).tolist()
    return [ends[start:stop] for start, stop in pairwise([0, *stops])]
