"""Each loss against its own definition: reference values, identities, extreme inputs."""

import math
from random import Random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from kd.losses.kl import forward_kl
from kd.losses.likelihood import cross_entropy
from kd.losses.probabilities import common_log_probs, expectation
from kd.losses.teacher import TopKRows
from tests.losses.batches import uld

Logit = st.floats(-30, 30, allow_subnormal=False)


def rows(draw: st.DrawFn, width: int) -> Tensor:
    """One row of logits, [1, width] float64, some of them -inf."""
    values = draw(st.lists(Logit, min_size=width, max_size=width))
    holes = draw(st.lists(st.booleans(), min_size=width, max_size=width))
    holes[draw(st.integers(0, width - 1))] = False
    values = [-math.inf if hole else value for value, hole in zip(values, holes, strict=True)]
    return torch.tensor([values], dtype=torch.float64)


@st.composite
def one_row(draw: st.DrawFn) -> Tensor:
    return rows(draw, draw(st.integers(1, 12)))


@st.composite
def two_rows(draw: st.DrawFn) -> tuple[Tensor, Tensor]:
    width = draw(st.integers(1, 12))
    return rows(draw, width), rows(draw, width)


# --- forward KL -----------------------------------------------------------------------------


def test_forward_kl_is_the_sum_it_is_defined_as() -> None:
    student = torch.tensor([[0.0, math.log(2), math.log(5)]], dtype=torch.float64)
    teacher = torch.tensor([[math.log(4), math.log(3), 0.0]], dtype=torch.float64)
    expected = (
        4 / 8 * math.log((4 / 8) / (1 / 8))
        + 3 / 8 * math.log((3 / 8) / (2 / 8))
        + 1 / 8 * math.log((1 / 8) / (5 / 8))
    )
    assert forward_kl(student, teacher).item() == pytest.approx(expected, rel=1e-14)


@given(two_rows())
def test_forward_kl_is_never_negative_nor_nan(pair: tuple[Tensor, Tensor]) -> None:
    """It is infinite exactly where the student excludes what the teacher allows."""
    student, teacher = pair
    value = forward_kl(student, teacher).item()
    assert value >= -1e-12
    excluded = (student == -math.inf) & (teacher.softmax(-1) > 0)
    assert math.isinf(value) == bool(excluded.any())


@given(two_rows())
def test_forward_kl_has_the_gradient_q_minus_p(pair: tuple[Tensor, Tensor]) -> None:
    student, teacher = pair
    student.requires_grad_()
    forward_kl(student, teacher).sum().backward()
    expected = student.detach().softmax(-1) - teacher.softmax(-1)
    torch.testing.assert_close(student.grad, expected, rtol=1e-9, atol=1e-12)


# --- ULD --------------------------------------------------------------------------------------


def test_uld_pads_the_shorter_vocabulary_with_zeros() -> None:
    student = torch.tensor([[0.2, 0.8]], dtype=torch.float64).log()
    teacher = torch.tensor([[0.1, 0.5, 0.4]], dtype=torch.float64).log()
    assert uld(student, teacher).item() == pytest.approx(0.3 + 0.2 + 0.1, rel=1e-14)
    assert uld(teacher, student).item() == pytest.approx(0.6, rel=1e-14)


@given(one_row(), one_row())
def test_uld_lies_between_0_and_2_and_is_twice_the_positive_part(
    student: Tensor, teacher: Tensor
) -> None:
    value = uld(student, teacher)
    assert -1e-12 <= value.item() <= 2 + 1e-12
    width = max(student.shape[-1], teacher.shape[-1])
    p, q = (
        torch.nn.functional.pad(side.softmax(-1), (0, width - side.shape[-1])).sort().values
        for side in (teacher, student)
    )
    torch.testing.assert_close(value, 2 * (p - q).relu().sum(-1), rtol=0, atol=1e-12)


@given(one_row(), one_row(), st.randoms(use_true_random=False))
def test_uld_ignores_how_a_vocabulary_is_numbered(
    student: Tensor, teacher: Tensor, random: Random
) -> None:
    order = list(range(student.shape[-1]))
    random.shuffle(order)
    torch.testing.assert_close(uld(student[:, order], teacher), uld(student, teacher))
    torch.testing.assert_close(uld(student[:, order], student), torch.zeros(1).double())


@given(one_row())
def test_uld_of_a_certain_teacher_is_two_times_one_minus_the_students_top(student: Tensor) -> None:
    """And not the cross-entropy, as has been suggested."""
    certain = torch.full_like(student, -math.inf)
    certain[0, -1] = 0.0
    expected = 2 * (1 - student.softmax(-1).max(-1).values)
    torch.testing.assert_close(uld(student, certain), expected, rtol=0, atol=1e-12)


@given(one_row(), one_row())
@settings(max_examples=50)
def test_uld_has_a_finite_gradient_that_sums_to_zero(student: Tensor, teacher: Tensor) -> None:
    student.requires_grad_()
    uld(student, teacher).sum().backward()
    assert student.grad is not None and student.grad.isfinite().all()
    assert abs(student.grad.sum().item()) < 1e-12


# --- cross-entropy ------------------------------------------------------------------------------


@given(one_row(), st.integers(0, 11))
def test_cross_entropy_is_the_targets_negative_log_probability(row: Tensor, target: int) -> None:
    target %= row.shape[-1]
    expected = -row.softmax(-1)[0, target].log()
    value = cross_entropy(row, torch.tensor([target]))
    torch.testing.assert_close(value, expected[None], rtol=1e-9, atol=1e-12)


# --- all -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["forward_kl", "uld"])
@given(one_row())
def test_a_divergence_of_identical_models_is_zero_with_zero_gradient(
    name: str, row: Tensor
) -> None:
    divergence = {"forward_kl": forward_kl, "uld": uld}[name]
    student = row.clone().requires_grad_()
    value = divergence(student, row)
    value.sum().backward()
    torch.testing.assert_close(value.detach(), torch.zeros(1).double(), rtol=0, atol=1e-12)
    torch.testing.assert_close(student.grad, torch.zeros_like(row), rtol=0, atol=1e-12)


def test_an_expectation_skips_impossible_outcomes_in_value_and_gradient() -> None:
    log_probs = torch.tensor([[0.0, -math.inf]])
    values = torch.tensor([[3.0, math.nan]], requires_grad=True)
    mean = expectation(log_probs, values)
    mean.sum().backward()
    assert mean.item() == 3.0 and values.grad is not None
    assert values.grad.tolist() == [[1.0, 0.0]]


def test_the_other_tokens_are_summed_and_not_what_is_left_of_one() -> None:
    """In float32 1 - sum(stored) would be 0 here."""
    student = torch.tensor([[20.0, 0.0, 0.0]])
    teacher = TopKRows(torch.tensor([[0]]), torch.tensor([[-0.1]]), torch.tensor([0.095]), 3)
    log_q, _ = common_log_probs(student, teacher)
    assert log_q[0, 1].item() == pytest.approx(math.log(2) - 20, rel=1e-6)
