"""Skew divergences: definition, range, limits, duality, and bounds on a top-k teacher."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from kd.errors import LossError
from kd.losses.kl import forward_kl
from kd.losses.skew import skew_kl, skew_reverse_kl
from tests.losses.test_divergences import two_rows
from tests.losses.test_truncation import distributions, top_k

SKEW = st.floats(0.01, 0.99)
STUDENT = torch.tensor([[0.1, 0.2, 0.7]], dtype=torch.float64)
TEACHER = torch.tensor([[0.5, 0.4, 0.1]], dtype=torch.float64)


def test_both_are_the_sums_they_are_defined_as() -> None:
    a = 0.3
    forward = sum(
        p * math.log(p / (a * p + (1 - a) * q))
        for p, q in zip(TEACHER[0].tolist(), STUDENT[0].tolist(), strict=True)
    )
    reverse = sum(
        q * math.log(q / ((1 - a) * p + a * q))
        for p, q in zip(TEACHER[0].tolist(), STUDENT[0].tolist(), strict=True)
    )
    values = (
        loss(STUDENT.log(), TEACHER.log(), skew=a).item() for loss in (skew_kl, skew_reverse_kl)
    )
    assert list(values) == pytest.approx([forward, reverse], rel=1e-14)


@given(two_rows(), SKEW)
@settings(max_examples=50)
def test_both_lie_between_0_and_ln_1_over_skew_with_finite_gradients(
    pair: tuple[Tensor, Tensor], skew: float
) -> None:
    """Whatever one side excludes."""
    student, teacher = pair
    for loss in (skew_kl, skew_reverse_kl):
        logits = student.clone().requires_grad_()
        value = loss(logits, teacher, skew=skew)
        value.sum().backward()
        assert -1e-12 <= value.item() <= math.log(1 / skew) + 1e-12
        assert logits.grad is not None and logits.grad.isfinite().all()


def test_the_largest_value_belongs_to_disjoint_supports() -> None:
    student, teacher = torch.tensor([[0.0, 1.0]]).log(), torch.tensor([[1.0, 0.0]]).log()
    for loss in (skew_kl, skew_reverse_kl):
        assert loss(student, teacher, skew=0.2).item() == pytest.approx(math.log(5), rel=1e-6)


@given(two_rows(), SKEW)
@settings(max_examples=50)
def test_either_is_the_other_with_the_sides_exchanged(
    pair: tuple[Tensor, Tensor], skew: float
) -> None:
    student, teacher = pair
    torch.testing.assert_close(
        skew_kl(student, teacher, skew=skew), skew_reverse_kl(teacher, student, skew=skew)
    )


def test_without_skew_they_tend_to_forward_and_reverse_kl() -> None:
    student, teacher = STUDENT.log(), TEACHER.log()
    forward, reverse = forward_kl(student, teacher), forward_kl(teacher, student)
    torch.testing.assert_close(skew_kl(student, teacher, skew=1e-9), forward, rtol=0, atol=1e-7)
    torch.testing.assert_close(
        skew_reverse_kl(student, teacher, skew=1e-9), reverse, rtol=0, atol=1e-7
    )
    assert not torch.isclose(forward, reverse)


@given(two_rows(), SKEW, st.booleans())
@settings(max_examples=50)
def test_identical_models_give_zero_with_a_zero_gradient(
    pair: tuple[Tensor, Tensor], skew: float, reverse: bool
) -> None:
    student = pair[0].requires_grad_()
    loss = skew_reverse_kl if reverse else skew_kl
    value = loss(student, pair[0].detach(), skew=skew)
    value.sum().backward()
    torch.testing.assert_close(value.detach(), torch.zeros(1).double(), rtol=0, atol=1e-12)
    torch.testing.assert_close(student.grad, torch.zeros_like(student), rtol=0, atol=1e-12)


def test_a_detached_mixture_changes_the_gradient_and_not_the_value() -> None:
    """The gradient becomes q (ln(q / m) - KL(q || m)), that of reverse KL against a fixed m."""
    gradients, values = [], []
    for detach in (False, True):
        logits = STUDENT.log().requires_grad_()
        value = skew_reverse_kl(logits, TEACHER.log(), skew=0.3, detach_mixture=detach)
        value.sum().backward()
        values.append(value.item())
        gradients.append(logits.grad)
    ratio = (STUDENT / (0.7 * TEACHER + 0.3 * STUDENT)).log()
    expected = STUDENT * (ratio - (STUDENT * ratio).sum())
    assert values[0] == values[1]
    torch.testing.assert_close(gradients[1], expected)
    assert not torch.isclose(gradients[0], expected).any()


@pytest.mark.parametrize("skew", [0.0, 1.0, -0.1, math.nan])
@pytest.mark.parametrize("loss", [skew_kl, skew_reverse_kl])
def test_a_skew_that_leaves_no_mixture_is_refused(loss: object, skew: float) -> None:
    assert callable(loss)
    with pytest.raises(LossError, match="skew"):
        loss(STUDENT, TEACHER, skew=skew)


# --- top-k teachers -------------------------------------------------------------------------------


def dropped_mass(student: Tensor, teacher: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Both sides' mass beyond the teacher's top k."""
    order = teacher.argsort(descending=True, stable=True)[:, k:]
    return student.gather(-1, order).sum(-1), teacher.gather(-1, order).sum(-1)


@given(distributions(), SKEW)
def test_the_bound_on_truncated_skew_kl_is_never_violated(
    case: tuple[Tensor, Tensor, int], skew: float
) -> None:
    student, teacher, k = case
    own, dropped = dropped_mass(student, teacher, k)
    full = skew_kl(student.log(), teacher.log(), skew=skew)
    missed = full - skew_kl(student.log(), top_k(teacher, k), skew=skew)
    assert (missed >= -1e-12).all()
    if dropped > 0:
        bound = dropped * (1 + (1 - skew) * own / (skew * dropped)).log()
        assert (missed <= bound + 1e-12).all()
        assert (bound <= dropped * (1 / (skew * dropped)).log() + 1e-12).all()
    else:
        assert (missed <= 1e-12).all()


@given(distributions(), SKEW)
def test_the_bound_on_truncated_skew_reverse_kl_is_never_violated(
    case: tuple[Tensor, Tensor, int], skew: float
) -> None:
    student, teacher, k = case
    own, dropped = dropped_mass(student, teacher, k)
    full = skew_reverse_kl(student.log(), teacher.log(), skew=skew)
    missed = full - skew_reverse_kl(student.log(), top_k(teacher, k), skew=skew)
    assert (missed >= -1e-12).all()
    assert (missed <= dropped * (1 - skew) / skew + 1e-12).all()
    if own > 0:
        assert (missed <= own * (1 + (1 - skew) * dropped / (skew * own)).log() + 1e-12).all()


def test_both_bounds_are_reached() -> None:
    """By sides that give their dropped mass to different tokens."""
    teacher = torch.tensor([[0.9, 0.1, 0.0]], dtype=torch.float64)
    student = torch.tensor([[0.8, 0.0, 0.2]], dtype=torch.float64)
    truncated = top_k(teacher, 1)
    forward, reverse = (
        loss(student.log(), teacher.log(), skew=0.1) - loss(student.log(), truncated, skew=0.1)
        for loss in (skew_kl, skew_reverse_kl)
    )
    assert forward.item() == pytest.approx(0.1 * math.log(1 + 0.9 * 0.2 / (0.1 * 0.1)))
    assert reverse.item() == pytest.approx(0.2 * math.log(1 + 0.9 * 0.1 / (0.1 * 0.2)))
