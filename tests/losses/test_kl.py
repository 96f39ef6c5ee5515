"""Forward, reverse and symmetric KL, and the cross-entropy of the likeliest token."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from kd.errors import LossError
from kd.losses.kl import forward_kl, reverse_kl, symmetric_kl, top1_cross_entropy
from tests.losses.test_divergences import two_rows
from tests.losses.test_truncation import distributions, top_k

STUDENT = torch.tensor([[1 / 8, 2 / 8, 5 / 8]], dtype=torch.float64).log()
TEACHER = torch.tensor([[4 / 8, 3 / 8, 1 / 8]], dtype=torch.float64).log()


def test_reverse_kl_is_the_sum_it_is_defined_as() -> None:
    expected = 1 / 8 * math.log(1 / 4) + 2 / 8 * math.log(2 / 3) + 5 / 8 * math.log(5)
    assert reverse_kl(STUDENT, TEACHER).item() == pytest.approx(expected, rel=1e-14)
    assert reverse_kl(STUDENT, TEACHER).item() == forward_kl(TEACHER, STUDENT).item()


@given(two_rows())
@settings(max_examples=50)
def test_reverse_kl_is_infinite_exactly_where_the_teacher_excludes(
    pair: tuple[Tensor, Tensor],
) -> None:
    student, teacher = pair
    value = reverse_kl(student, teacher).item()
    assert value >= -1e-12
    excluded = (teacher == -math.inf) & (student.softmax(-1) > 0)
    assert math.isinf(value) == bool(excluded.any())


@given(two_rows())
@settings(max_examples=50)
def test_reverse_kl_has_the_gradient_of_its_definition(pair: tuple[Tensor, Tensor]) -> None:
    """q (ln(q / p) - KL(q || p)), 0 for tokens that the student excludes."""
    student, teacher = pair
    student, teacher = student.requires_grad_(), teacher.clamp(min=-50)
    value = reverse_kl(student, teacher)
    value.sum().backward()
    log_q, log_p = student.detach().log_softmax(-1), teacher.log_softmax(-1)
    expected = log_q.exp() * (log_q - log_p - value.detach()[:, None])
    expected = expected.masked_fill(log_q == -math.inf, 0.0)
    torch.testing.assert_close(student.grad, expected, rtol=1e-9, atol=1e-12)


@given(two_rows(), st.floats(0.01, 0.99))
@settings(max_examples=50)
def test_symmetric_kl_is_the_weighted_sum_and_weighs_forward_kl(
    pair: tuple[Tensor, Tensor], weight: float
) -> None:
    student, teacher = pair
    value = symmetric_kl(student, teacher, forward_weight=weight)
    expected = weight * forward_kl(student, teacher) + (1 - weight) * reverse_kl(student, teacher)
    torch.testing.assert_close(value, expected)
    torch.testing.assert_close(symmetric_kl(teacher, student, forward_weight=1 - weight), value)


def test_symmetric_kl_of_weight_0_or_1_is_one_of_both_though_the_other_is_infinite() -> None:
    certain = torch.tensor([[0.0, -math.inf]], dtype=torch.float64)
    even = torch.zeros(1, 2, dtype=torch.float64)
    assert reverse_kl(even, certain).item() == math.inf
    forward = symmetric_kl(even, certain, forward_weight=1.0)
    assert forward.item() == pytest.approx(math.log(2), rel=1e-14)
    assert symmetric_kl(certain, even, forward_weight=0.0).item() == forward.item()


@pytest.mark.parametrize("weight", [-0.1, 1.1, math.nan])
def test_a_weight_that_is_no_share_is_refused(weight: float) -> None:
    with pytest.raises(LossError, match="forward_weight"):
        symmetric_kl(STUDENT, TEACHER, forward_weight=weight)


@given(distributions())
@settings(max_examples=50)
def test_what_truncated_reverse_kl_misses_is_the_divergence_among_the_dropped(
    case: tuple[Tensor, Tensor, int],
) -> None:
    student, teacher, k = case
    teacher = (teacher + 1e-3) / (teacher + 1e-3).sum()  # a finite divergence
    truncated = reverse_kl(student.log(), top_k(teacher, k))
    dropped = teacher.argsort(descending=True)[:, k:]
    p, q = teacher.gather(-1, dropped), student.gather(-1, dropped)
    missed = torch.special.xlogy(q, q / q.sum() / (p / p.sum())).nansum(-1)
    full = reverse_kl(student.log(), teacher.log())
    torch.testing.assert_close(truncated + missed, full, rtol=1e-9, atol=1e-12)


def test_top1_cross_entropy_counts_by_the_teachers_certainty() -> None:
    value = top1_cross_entropy(STUDENT, TEACHER)
    assert value.item() == pytest.approx(4 / 8 * math.log(8), rel=1e-14)


@given(distributions())
@settings(max_examples=50)
def test_top1_cross_entropy_needs_one_stored_token_only(case: tuple[Tensor, Tensor, int]) -> None:
    student, teacher, _ = case
    full = top1_cross_entropy(student.log(), teacher.log())
    torch.testing.assert_close(top1_cross_entropy(student.log(), top_k(teacher, 1)), full)
