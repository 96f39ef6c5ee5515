"""Minimum edit distance: distances, paths, mappings, and what each token is taught."""

import math
from functools import cache
from itertools import pairwise, product

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from kd.errors import LossError
from kd.losses import Setup, TeacherLogits, distillation_loss
from kd.losses.mined import (
    UNMAPPED,
    edit_distances,
    nearest_texts,
    nearest_tokens,
    only_partners,
    warping_path,
)
from kd.losses.setup import Vocabularies

TEXTS = st.lists(st.text("ab é", max_size=5), min_size=1, max_size=6)


def plain_distance(first: str, second: str) -> int:
    """The definition, by recursion."""

    @cache
    def distance(i: int, j: int) -> int:
        if not i or not j:
            return i + j
        differs = first[i - 1] != second[j - 1]
        return min(distance(i - 1, j) + 1, distance(i, j - 1) + 1, distance(i - 1, j - 1) + differs)

    return distance(len(first), len(second))


@settings(max_examples=50)
@given(TEXTS, TEXTS)
def test_edit_distances_are_the_recursion(first: list[str], second: list[str]) -> None:
    expected = [[plain_distance(a, b) for b in second] for a in first]
    assert edit_distances(first, second).tolist() == expected


def test_edit_distances_of_nothing_have_a_shape() -> None:
    assert edit_distances([], ["a"]).shape == (0, 1) and edit_distances(["a"], []).shape == (1, 0)


@settings(max_examples=50)
@given(TEXTS, TEXTS)
def test_the_nearest_text_is_the_first_of_the_nearest(texts: list[str], others: list[str]) -> None:
    distances = [[plain_distance(text, other) for other in others] for text in texts]
    assert nearest_texts(texts, others) == [row.index(min(row)) for row in distances]


def test_tokens_without_a_text_are_mapped_to_none() -> None:
    assert nearest_tokens(["b", None, "abc"], [None, "ab", "b"]) == [2, UNMAPPED, 1]
    assert nearest_tokens(["b"], [None]) == [UNMAPPED]


@st.composite
def costs(draw: st.DrawFn) -> np.ndarray:
    shape = draw(st.integers(1, 5)), draw(st.integers(1, 5))
    values = st.lists(st.integers(0, 3), min_size=shape[1], max_size=shape[1])
    return np.array(draw(st.lists(values, min_size=shape[0], max_size=shape[0])))


@settings(max_examples=50)
@given(costs())
def test_the_warping_path_is_monotonic_and_the_cheapest(table: np.ndarray) -> None:
    path = warping_path(table)[::-1]
    assert path[0] == (0, 0) and path[-1] == tuple(np.array(table.shape) - 1)
    for (row, column), (after, beside) in pairwise(path):
        assert (after - row, beside - column) in {(0, 1), (1, 0), (1, 1)}

    @cache
    def cheapest(row: int, column: int) -> float:
        if row < 0 or column < 0:
            return math.inf
        before = [cheapest(row - a, column - b) for a, b in product((0, 1), repeat=2) if a or b]
        return table[row, column] + (min(before) if row or column else 0)

    assert sum(table[cell] for cell in path) == cheapest(*path[-1])


def test_a_row_with_two_partners_has_no_only_one() -> None:
    together = edit_distances(["xxxx", "abcdef", "yyyy"], ["xxxx", "abc", "def", "yyyy"])
    assert only_partners(together) == [0, None, 3]
    assert only_partners(np.zeros((2, 0), dtype=np.int64)) == [None, None]


STUDENT = ["a", "b", " ab", "bc", None]
TEACHER = ["b", "bb", "a", "bcd", None, " abb"]  # mapped to b, b, a, bc, nothing, ' ab'


def loss(
    student: Tensor, teacher: Tensor | TeacherLogits, own: list[int], other: list[int]
) -> Tensor:
    """One sequence without a prompt; logits stand at the tokens that they predict."""
    labels = torch.tensor([other]) if isinstance(teacher, Tensor) else None
    setup = Setup(vocabularies=Vocabularies(STUDENT, TEACHER))
    return distillation_loss(
        "mined", student, teacher, torch.tensor([own]), labels, shift=False, setup=setup
    )


def logs(*probs: list[float]) -> Tensor:
    return torch.tensor([probs], dtype=torch.float64).log()


def test_a_pair_is_taught_the_moved_distribution() -> None:
    q = logs([0.1, 0.2, 0.3, 0.25, 0.15])
    p = logs([0.2, 0.3, 0.1, 0.05, 0.15, 0.2])
    r = {1: 0.3, 0: 0.1, 3: 0.05, 2: 0.2}  # the larger of b and bb; what has no text is nowhere
    total = sum(r.values())
    expected = sum(v / total * math.log(v / total / q[0, 0].exp()[k].item()) for k, v in r.items())
    assert loss(q, p, [1], [0]).item() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(
    ("own", "other"),
    [
        ([3], [0, 1]),  # two partners
        ([0], [0]),  # one partner, mapped to another token
        ([4], [4]),  # end-of-text: a token without a text
    ],
)
def test_all_other_tokens_are_taught_themselves(own: list[int], other: list[int]) -> None:
    torch.manual_seed(0)
    q, p = torch.randn(1, 1, 5).double(), torch.randn(1, len(other), 6).double()
    expected = -q.log_softmax(-1)[0, 0, own[0]]
    torch.testing.assert_close(loss(q, p, own, other), expected)


def test_pairs_follow_the_texts_and_not_the_places() -> None:
    """'a' 'b' against 'bcd' 'a' 'b': 'a' has two partners, and 'b' is taught the third row."""
    torch.manual_seed(0)
    q, p = torch.randn(1, 2, 5).double(), torch.randn(1, 3, 6).double()
    itself = -q.log_softmax(-1)[0, 0, 0]
    third = loss(q[:, 1:], p[:, 2:], [1], [0])
    torch.testing.assert_close(loss(q, p, [0, 1], [3, 2, 0]), (itself + third) / 2)


def test_identical_models_have_no_loss_and_no_gradient() -> None:
    torch.manual_seed(0)
    q = torch.randn(1, 3, 4, dtype=torch.float64, requires_grad=True)
    words = ["a", "b", " ab", "bc"]
    labels = torch.tensor([[3, 0, 0]])
    setup = Setup(vocabularies=Vocabularies(words, words))
    value = distillation_loss("mined", q, q.detach(), labels, labels, shift=False, setup=setup)
    value.backward()
    assert value.item() == pytest.approx(0.0, abs=1e-15)
    assert q.grad is not None and q.grad.abs().max() < 1e-15


def test_a_stored_row_of_which_nothing_is_mapped_teaches_the_text() -> None:
    q = logs([0.1, 0.2, 0.3, 0.25, 0.15])
    teacher = TeacherLogits(
        ids=torch.tensor([[[4]]]),  # no text
        log_probs=torch.tensor([[[0.6]]]).log(),
        dropped=torch.tensor([[0.4]]),
        lengths=torch.tensor([1]),
        vocabulary=6,
        tokens=torch.tensor([[0]]),
    )
    assert loss(q, teacher, [1], [0]).item() == pytest.approx(-math.log(0.2))


def test_a_sequence_that_the_teacher_does_not_answer_has_no_rows() -> None:
    torch.manual_seed(0)
    q, p = torch.randn(2, 2, 5).double(), torch.randn(2, 1, 6).double()
    own, other = torch.tensor([[0, 1], [1, 0]]), torch.tensor([[-100], [0]])
    setup = Setup(vocabularies=Vocabularies(STUDENT, TEACHER))
    both = distillation_loss("mined", q, p, own, other, shift=False, setup=setup)
    torch.testing.assert_close(both, loss(q[1:], p[1:], [1, 0], [0]))


def test_vocabularies_have_to_be_given() -> None:
    q, p = torch.zeros(1, 1, 5), torch.zeros(1, 1, 6)
    with pytest.raises(LossError, match="vocabularies"):
        distillation_loss("mined", q, p, torch.tensor([[0]]), torch.tensor([[0]]), shift=False)
