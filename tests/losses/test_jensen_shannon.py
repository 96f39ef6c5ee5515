"""Generalised Jensen-Shannon divergence: its limits, its bound, its digits."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from kd.errors import LossError
from kd.losses.jensen_shannon import jensen_shannon
from kd.losses.kl import forward_kl, reverse_kl
from tests.losses.test_divergences import two_rows
from tests.losses.test_truncation import distributions, top_k

WEIGHT = st.floats(0.01, 0.99)


def test_it_is_the_sum_it_is_defined_as() -> None:
    student = torch.tensor([[0.9, 0.1]], dtype=torch.float64).log()
    teacher = torch.tensor([[0.4, 0.6]], dtype=torch.float64).log()
    m = [0.3 * 0.4 + 0.7 * 0.9, 0.3 * 0.6 + 0.7 * 0.1]
    expected = 0.3 * (0.4 * math.log(0.4 / m[0]) + 0.6 * math.log(0.6 / m[1]))
    expected += 0.7 * (0.9 * math.log(0.9 / m[0]) + 0.1 * math.log(0.1 / m[1]))
    value = jensen_shannon(student, teacher, teacher_weight=0.3)
    assert value.item() == pytest.approx(expected, rel=1e-13)


@given(two_rows(), WEIGHT)
@settings(max_examples=50)
def test_it_lies_between_0_and_the_entropy_of_its_weights(
    pair: tuple[Tensor, Tensor], weight: float
) -> None:
    entropy = -weight * math.log(weight) - (1 - weight) * math.log(1 - weight)
    student = pair[0].clone().requires_grad_()
    value = jensen_shannon(student, pair[1], teacher_weight=weight)
    value.sum().backward()
    assert -1e-12 <= value.item() <= entropy + 1e-12
    assert student.grad is not None and student.grad.isfinite().all()
    swapped = jensen_shannon(pair[1], pair[0], teacher_weight=1 - weight)
    torch.testing.assert_close(swapped, value.detach(), rtol=1e-9, atol=1e-12)


def test_sides_that_share_no_token_have_the_largest_value() -> None:
    student = torch.tensor([[0.0, -math.inf]], dtype=torch.float64)
    value = jensen_shannon(student, student.flip(-1))
    assert value.item() == pytest.approx(math.log(2), rel=1e-14)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("weight", [1e-6, 1e-9, 1e-12])
def test_scaled_it_tends_to_forward_and_reverse_kl_and_keeps_its_digits(
    weight: float, dtype: torch.dtype
) -> None:
    torch.manual_seed(0)
    student, teacher = torch.randn(2, 20, 9, dtype=torch.float64).to(dtype)
    tolerance = 30 * weight + 8 * torch.finfo(dtype).eps
    near = jensen_shannon(student, teacher, teacher_weight=weight, scaled=True)
    torch.testing.assert_close(near, forward_kl(student, teacher), rtol=tolerance, atol=tolerance)
    unscaled = jensen_shannon(student, teacher, teacher_weight=weight) / weight
    torch.testing.assert_close(unscaled, near, rtol=tolerance, atol=tolerance)
    if dtype == torch.float64 and weight == 1e-6:  # 1 - weight is exact enough
        far = jensen_shannon(student, teacher, teacher_weight=1 - weight, scaled=True)
        torch.testing.assert_close(far, reverse_kl(student, teacher), rtol=1e-4, atol=1e-4)


@given(two_rows())
@settings(max_examples=50)
def test_scaled_it_is_forward_kl_at_0_and_reverse_kl_at_1(pair: tuple[Tensor, Tensor]) -> None:
    ends = [jensen_shannon(*pair, teacher_weight=weight, scaled=True) for weight in (0.0, 1.0)]
    assert torch.equal(ends[0], forward_kl(*pair)) and torch.equal(ends[1], reverse_kl(*pair))
    half = jensen_shannon(*pair, scaled=True)
    torch.testing.assert_close(half, 4 * jensen_shannon(*pair), rtol=1e-12, atol=0)


@pytest.mark.parametrize("weight", [0.0, 1.0, 0, 1])
def test_a_loss_that_is_always_0_is_refused_and_its_limits_are_named(weight: float) -> None:
    with pytest.raises(LossError, match=r"forward_kl.*reverse_kl.*scaled"):
        jensen_shannon(torch.zeros(1, 2), torch.zeros(1, 2), teacher_weight=weight)
    with pytest.raises(LossError, match="teacher_weight"):
        jensen_shannon(torch.zeros(1, 2), torch.zeros(1, 2), teacher_weight=1.5)


@given(distributions(), WEIGHT)
@settings(max_examples=50)
def test_the_bound_on_what_truncation_misses_is_never_violated(
    case: tuple[Tensor, Tensor, int], weight: float
) -> None:
    student, teacher, k = case
    truncated = top_k(teacher, k)
    error = jensen_shannon(student.log(), teacher.log(), teacher_weight=weight) - jensen_shannon(
        student.log(), truncated, teacher_weight=weight
    )
    dropped = weight * truncated.dropped
    bound = dropped - torch.special.xlogy(dropped, dropped)
    assert (error >= -1e-12).all() and (error <= bound + 1e-12).all()
