"""TAID: the moving target, its gradient, and the schedule by which it moves."""

import math

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor

from kd.errors import LossError
from kd.losses import Setup, load_loss
from kd.losses.interpolated import TemporallyAdaptiveInterpolation
from kd.losses.kl import forward_kl
from tests.losses.batches import same_tokenizer
from tests.losses.test_divergences import two_rows


def fixed(t: float) -> TemporallyAdaptiveInterpolation:
    return TemporallyAdaptiveInterpolation(1, t_start=t, t_end=t)


def value_and_gradient(t: float, student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
    logits = student.clone().requires_grad_()
    value = fixed(t)(logits, teacher)
    value.sum().backward()
    assert logits.grad is not None
    return value.detach(), logits.grad


def test_the_value_by_hand() -> None:
    """Odds of 9 and 1 : 4, halfway: odds 3 / 2."""
    student = torch.tensor([[1.0, 4.0]], dtype=torch.float64).log()
    teacher = torch.tensor([[9.0, 1.0]], dtype=torch.float64).log()
    expected = 0.6 * math.log(0.6 / 0.2) + 0.4 * math.log(0.4 / 0.8)
    assert fixed(0.5)(student, teacher).item() == pytest.approx(expected, rel=1e-14)


@given(two_rows(), st.floats(0.01, 0.99))
@settings(max_examples=50)
def test_the_target_is_a_constant_so_the_gradient_is_q_minus_r(
    pair: tuple[Tensor, Tensor], t: float
) -> None:
    student, teacher = pair
    both = student + teacher > -math.inf
    assume(both.any())  # without a token that both allow there is no target
    target = ((1 - t) * student + t * teacher).masked_fill(~both, -math.inf).softmax(-1)
    value, gradient = value_and_gradient(t, student, teacher)
    q = student.softmax(-1)
    expected = torch.xlogy(target, target / q.where(both, 1.0)).sum(-1)
    torch.testing.assert_close(value, expected, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(gradient, q - target, rtol=1e-9, atol=1e-12)


@given(two_rows())
@settings(max_examples=50)
def test_it_goes_from_0_to_forward_kl(pair: tuple[Tensor, Tensor]) -> None:
    """Whatever one side excludes."""
    student, teacher = pair
    value, gradient = value_and_gradient(0.0, student, teacher)
    assert value.item() == pytest.approx(0.0, abs=1e-12)
    torch.testing.assert_close(gradient, torch.zeros_like(gradient), rtol=0, atol=1e-12)
    value, gradient = value_and_gradient(1.0, student, teacher)
    torch.testing.assert_close(value, forward_kl(student, teacher))
    torch.testing.assert_close(gradient, student.softmax(-1) - teacher.softmax(-1))


@given(two_rows(), st.floats(0, 1))
@settings(max_examples=50)
def test_identical_models_give_zero_with_a_zero_gradient(
    pair: tuple[Tensor, Tensor], t: float
) -> None:
    value, gradient = value_and_gradient(t, pair[0], pair[0])
    assert value.item() == pytest.approx(0.0, abs=1e-12)
    torch.testing.assert_close(gradient, torch.zeros_like(gradient), rtol=0, atol=1e-12)


def test_the_schedule_is_kept_in_float64_and_the_loss_is_not() -> None:
    student, teacher = torch.randn(2, 3, 5)
    assert fixed(0.7).t.dtype == torch.float64
    assert fixed(0.7)(student, teacher).dtype == torch.float32


# --- the schedule ---------------------------------------------------------------------------------


def test_a_schedule_by_hand() -> None:
    loss = TemporallyAdaptiveInterpolation(100, t_start=0.2, t_end=0.9, alpha=0.1, beta=0.5)
    loss.step(4.0)  # nothing to compare with
    assert loss.t.item() == pytest.approx(0.2, rel=1e-14)
    loss.step(3.0)  # fell by a quarter: momentum 0.125
    second = 0.2 + 0.1 / (1 + math.exp(-0.125)) * 0.8
    assert loss.t.item() == pytest.approx(second, rel=1e-14)
    loss.step(6.0)  # rose by 1: momentum 0.0625 - 0.5
    third = second + 0.1 / (1 + math.exp(0.4375)) * (1 - second)
    assert loss.t.item() == pytest.approx(third, rel=1e-14)


def test_without_the_adaptive_part_t_rises_along_the_ramp() -> None:
    loss = TemporallyAdaptiveInterpolation(4, t_start=0.2, t_end=0.6, alpha=0.0)
    found = []
    for _ in range(6):
        loss.step(1.0)
        found.append(loss.t.item())
    assert found == pytest.approx([0.2, 0.3, 0.4, 0.5, 0.6, 0.6])


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=20), st.floats(0, 1), st.floats(0, 0.99))
@settings(max_examples=50)
def test_t_never_falls_nor_exceeds_its_end(values: list[float], alpha: float, beta: float) -> None:
    loss = TemporallyAdaptiveInterpolation(10, t_start=0.3, t_end=0.8, alpha=alpha, beta=beta)
    before = 0.3
    for value in values:
        loss.step(value)
        assert before <= loss.t.item() <= 0.8
        before = loss.t.item()


def test_a_first_loss_of_zero_does_not_ruin_the_momentum() -> None:
    """As at t_start = 0, where the target is the student: 0 to 0.5 is no relative change."""
    loss = TemporallyAdaptiveInterpolation(10, t_start=0.0, alpha=0.1)
    for value in (1e-17, 0.5, 0.4):
        loss.step(value)
    assert loss.momentum.item() == pytest.approx(0.01 * 0.2)


def test_a_restored_schedule_goes_on_where_it_was() -> None:
    whole, first, second = (TemporallyAdaptiveInterpolation(10, alpha=0.3) for _ in range(3))
    values = [3.0, 2.5, 2.6, 2.0, 1.9]
    for value in values:
        whole.step(value)
    for value in values[:2]:
        first.step(value)
    second.load_state_dict(first.state_dict())
    for value in values[2:]:
        second.step(value)
    assert all(
        torch.equal(second.state_dict()[key], own) for key, own in whole.state_dict().items()
    )


def test_a_loaded_loss_advances_and_saves_its_schedule() -> None:
    batch = same_tokenizer()
    loss = load_loss("taid", setup=batch.setup, alpha=0.0)
    first = loss(*batch.tensors).item()
    for _ in range(6):
        loss.step(first)
    assert loss(*batch.tensors).item() > first  # the target has moved towards the teacher
    (t,) = (value for key, value in loss.state_dict().items() if key.endswith(".t"))
    assert t.item() == pytest.approx(0.4 + 0.6 * 5 / 10)


@pytest.mark.parametrize(
    "options",
    [
        {"t_start": 0.9, "t_end": 0.5},
        {"t_end": 1.5},
        {"t_start": -0.1},
        {"alpha": -1.0},
        {"beta": 1.0},
    ],
)
def test_a_schedule_out_of_range_is_refused(options: dict[str, float]) -> None:
    with pytest.raises(LossError, match=next(iter(options)).partition("_")[0]):
        TemporallyAdaptiveInterpolation(10, **options)


def test_the_number_of_steps_must_be_known() -> None:
    with pytest.raises(LossError, match="total_steps"):
        load_loss("taid", setup=Setup())
    with pytest.raises(LossError, match="total_steps"):
        TemporallyAdaptiveInterpolation(0)
