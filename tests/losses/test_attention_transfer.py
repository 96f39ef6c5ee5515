"""Attention among paired positions: by hand, invariances, and what it does not see."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from kd.alignment import AnswerTokens, truncate
from kd.errors import LossError
from kd.losses.answers import find_answers
from kd.losses.attention_transfer import attention_transfer
from kd.losses.features import AlignedFeatures, Features, ModelFeatures


def aligned(
    student: Tensor, teacher: Tensor, own: list[list[int]], other: list[list[int]]
) -> AlignedFeatures:
    """Attentions [B, heads, T, T] and labels that stand at the predicting positions."""
    sides = [find_answers(torch.tensor(labels), shift=False) for labels in (own, other)]
    pairs = truncate(*(AnswerTokens(side.lengths) for side in sides))
    features = Features(*(ModelFeatures((), (part,)) for part in (student, teacher)))
    return AlignedFeatures(features, *sides, pairs)


def causal(rows: int, heads: int, length: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    scores = torch.randn(rows, heads, length, length, generator=generator, dtype=torch.float64)
    future = torch.ones(length, length).triu(1).bool()
    return scores.masked_fill(future, -torch.inf).softmax(-1)


# The student answers at positions 1 and 3, the teacher at 0 and 1.
STUDENT = torch.tensor(
    [[[[1.0, 0, 0, 0], [0.5, 0.5, 0, 0], [0.2, 0.2, 0.6, 0], [0.4, 0.1, 0.2, 0.3]]]],
    dtype=torch.float64,
)
TEACHER = torch.tensor(
    [[[[1.0, 0], [0.7, 0.3]], [[1.0, 0], [0.3, 0.7]]]], dtype=torch.float64
)  # two heads, whose mean is [0.5, 0.5]
OWN, OTHER = [[-100, 0, -100, 0]], [[0, 0]]


@pytest.mark.parametrize(
    ("metric", "expected"),
    [
        # Of the student's last row 0.1 and 0.3 remain: [0.25, 0.75]; of the first only itself.
        ("mse", ((0.25 - 0.5) ** 2 + (0.75 - 0.5) ** 2) / 2),
        ("kl", 0.5 * math.log(0.5 / 0.25) + 0.5 * math.log(0.5 / 0.75)),
    ],
)
def test_rows_are_cut_to_paired_columns_and_compared(metric: str, expected: float) -> None:
    values = attention_transfer(aligned(STUDENT, TEACHER, OWN, OTHER), metric=metric)
    assert values.tolist() == pytest.approx([0.0, expected], rel=1e-12)


@settings(max_examples=50)
@given(st.integers(0, 99), st.sampled_from(["mse", "kl"]))
def test_values_are_bounded_and_zero_for_the_same_attention(seed: int, metric: str) -> None:
    labels = [[-100, 0, 0, 0], [0, 0, -100, -100]]
    student, teacher = causal(2, 3, 4, seed), causal(2, 2, 4, seed + 1)
    counts = torch.tensor([3, 3, 3, 2, 2])
    values = attention_transfer(aligned(student, teacher, labels, labels), metric=metric)
    assert (values >= -1e-15).all()
    if metric == "mse":
        assert (values <= 2 / counts).all()
    same = attention_transfer(aligned(teacher, teacher, labels, labels), metric=metric)
    torch.testing.assert_close(same, torch.zeros(5).double(), rtol=0, atol=1e-15)


def test_attention_to_other_positions_is_not_seen() -> None:
    """A prompt that takes half of every row away changes nothing."""
    diluted = STUDENT.clone()
    diluted[..., 1:, 1:] *= 0.5
    diluted[..., 1:, 0] = 1 - diluted[..., 1:, 1:].sum(-1)
    values = [attention_transfer(aligned(side, TEACHER, OWN, OTHER)) for side in (STUDENT, diluted)]
    torch.testing.assert_close(values[0], values[1])


def test_sequences_do_not_mix_and_a_single_pair_has_no_loss() -> None:
    student, teacher = causal(2, 2, 4), causal(2, 2, 4, seed=1)
    both = [[0, 0, 0, -100], [-100, -100, 0, -100]]
    values = attention_transfer(aligned(student, teacher, both, both))
    alone = attention_transfer(aligned(student[:1], teacher[:1], both[:1], both[:1]))
    torch.testing.assert_close(values[:3], alone)
    assert values[3] == 0.0


@pytest.mark.parametrize("metric", ["mse", "kl"])
def test_attention_of_zero_gives_finite_values_and_gradients(metric: str) -> None:
    """A window that ends before the first pair; and a row that attends to no pair at all."""
    student = STUDENT.clone()
    student[0, 0, 3] = torch.tensor([0.5, 0.0, 0.0, 0.5])
    student.requires_grad_()
    values = attention_transfer(aligned(student, TEACHER, OWN, OTHER), metric=metric)
    values.sum().backward()
    assert values.isfinite().all() and values[1] > 0
    assert student.grad is not None and student.grad.isfinite().all()
    student = STUDENT.clone()
    student[0, 0, 3] = torch.tensor([1.0, 0.0, 0.0, 0.0])
    student.requires_grad_()
    values = attention_transfer(aligned(student, TEACHER, OWN, OTHER), metric=metric)
    values.sum().backward()
    assert values.tolist() == [0.0, 0.0]
    assert student.grad is not None and student.grad.isfinite().all()


def test_layers_are_averaged() -> None:
    own, other = [causal(1, 2, 3, seed) for seed in (0, 1)], [causal(1, 2, 3, 2)]
    labels = [[0, 0, 0]]
    parts = [attention_transfer(aligned(side, other[0], labels, labels)) for side in own]
    features = aligned(own[0], other[0], labels, labels)
    both = Features(ModelFeatures((), tuple(own)), features.features.teacher)
    together = attention_transfer(
        AlignedFeatures(both, features.own, features.other, features.pairs), layers=[0.0, 1.0]
    )
    torch.testing.assert_close(together, (parts[0] + parts[1]) / 2)


def test_undefined_options_are_refused() -> None:
    features = aligned(STUDENT, TEACHER, OWN, OTHER)
    with pytest.raises(LossError, match="metric 'l2'"):
        attention_transfer(features, metric="l2")
    with pytest.raises(LossError, match="layers"):
        attention_transfer(features, layers=[])
