"""Alignments by text: `spans` and `chunks`."""

from itertools import accumulate

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from kd.alignment import ALIGNMENTS, Alignment, AnswerTokens, chunks, spans, truncate
from kd.errors import LossError

Pairs = list[tuple[int, int, int, int, int]]
Ends = list[list[int]]


def tokens(ends: Ends) -> AnswerTokens:
    flat = torch.tensor([end for row in ends for end in row], dtype=torch.int64)
    return AnswerTokens(torch.tensor([len(row) for row in ends]), flat)


def listed(pairs: Alignment) -> Pairs:
    """Sequence, first and last of the student's tokens, first and last of the teacher's."""
    columns = (
        pairs.sequence,
        pairs.student_first,
        pairs.student,
        pairs.teacher_first,
        pairs.teacher,
    )
    return list(zip(*(column.tolist() for column in columns), strict=True))


lengths = st.lists(st.integers(1, 4), max_size=6)
growing = lengths.map(lambda parts: list(accumulate(parts)))
batches = st.lists(st.tuples(growing, growing), min_size=1, max_size=3)


@given(batches)
def test_chunks_end_exactly_where_both_sides_have_an_end(
    batch: list[tuple[list[int], ...]],
) -> None:
    student, teacher = ([side[i] for side in batch] for i in (0, 1))
    found = listed(chunks(tokens(student), tokens(teacher)))
    for b, (own, other) in enumerate(batch):
        mine = [pair for pair in found if pair[0] == b]
        assert [own[pair[2]] for pair in mine] == sorted(set(own) & set(other))
        assert [other[pair[4]] for pair in mine] == [own[pair[2]] for pair in mine]
        for first, last in ((1, 2), (3, 4)):  # one after the other, from the start
            covered = [token for pair in mine for token in range(pair[first], pair[last] + 1)]
            assert covered == list(range(len(covered)))
    assert found == sorted(found)


@given(batches)
def test_spans_are_chunks_and_one_last_pair_of_what_is_left_on_both_sides(
    batch: list[tuple[list[int], ...]],
) -> None:
    student, teacher = ([side[i] for side in batch] for i in (0, 1))
    closed = listed(chunks(tokens(student), tokens(teacher)))
    expected = []
    for b, (own, other) in enumerate(batch):
        mine = [pair for pair in closed if pair[0] == b]
        after, beyond = (mine[-1][2] + 1, mine[-1][4] + 1) if mine else (0, 0)
        left = after < len(own) and beyond < len(other)
        expected += mine + [(b, after, len(own) - 1, beyond, len(other) - 1)] * left
    assert listed(spans(tokens(student), tokens(teacher))) == expected


def test_pairs_by_hand() -> None:
    student = tokens([[3, 4, 9, 12], [], [2, 7]])
    teacher = tokens([[3, 6, 9, 11], [5], [2, 7, 7]])
    closed = [(0, 0, 0, 0, 0), (0, 1, 2, 1, 2), (2, 0, 0, 0, 0), (2, 1, 1, 1, 1)]
    assert listed(chunks(student, teacher)) == closed
    # 12 against 11 is left over on both sides, the last token without text on one.
    assert listed(spans(student, teacher)) == [*closed[:2], (0, 3, 3, 3, 3), *closed[2:]]


def test_tokens_that_end_inside_of_a_character_join_those_that_complete_it() -> None:
    """A character of two bytes: one token on one side, three on the other (ends 1, 1, 3)."""
    assert listed(spans(tokens([[1, 1, 1, 3]]), tokens([[1, 3]]))) == [
        (0, 0, 0, 0, 0),
        (0, 1, 3, 1, 1),
    ]


@given(batches)
def test_tokens_cut_alike_are_paired_one_by_one(batch: list[tuple[list[int], ...]]) -> None:
    side = tokens([own for own, _ in batch])
    expected = listed(truncate(side, side))
    assert listed(spans(side, side)) == listed(chunks(side, side)) == expected


@pytest.mark.parametrize("name", ["spans", "chunks"])
def test_missing_ends_are_refused_with_what_to_pass(name: str) -> None:
    known, unknown = tokens([[1, 2]]), AnswerTokens(torch.tensor([2]))
    with pytest.raises(LossError, match=rf"'{name}'.*Extras\(student_ends=\.\.\.\)"):
        ALIGNMENTS[name](unknown, known)
    with pytest.raises(LossError, match=r"Extras\(teacher_ends=\.\.\.\), or TeacherLogits"):
        ALIGNMENTS[name](known, unknown)
