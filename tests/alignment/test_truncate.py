"""The `truncate` alignment."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from kd.alignment import AnswerTokens, find_alignment
from kd.errors import LossError

Lengths = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=1, max_size=6)


@given(Lengths)
def test_pairs_are_the_equal_positions_up_to_the_shorter_answer(
    lengths: list[tuple[int, int]],
) -> None:
    student, teacher = (AnswerTokens(torch.tensor(side)) for side in zip(*lengths, strict=True))
    pairs = find_alignment("truncate")(student, teacher)
    expected = [(b, t) for b, both in enumerate(lengths) for t in range(min(both))]
    assert list(zip(pairs.sequence.tolist(), pairs.student.tolist(), strict=True)) == expected
    assert pairs.teacher.tolist() == pairs.student.tolist()


def test_an_unknown_alignment_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(LossError, match="Did you mean 'truncate'"):
        find_alignment("truncated")
