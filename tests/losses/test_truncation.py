"""Losses on a teacher of which only the top-k is known: limits, bounds, refusals."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from kd.errors import LossError
from kd.losses import available_losses, loss_info
from kd.losses.kl import forward_kl
from kd.losses.probabilities import common_log_probs
from kd.losses.teacher import TopKRows
from tests.losses.batches import STOPPED_GRADIENT, batch_for, stored, uld

WITH_TEACHER = [
    name
    for name, info in available_losses().items()
    if info.needs_distributions and not info.needs_live_teacher
]


def top_k(probs: Tensor, k: int) -> TopKRows:
    """The k likeliest of `probs` [N, V], with two entries of padding."""
    values, ids = probs.sort(descending=True)
    pad = torch.nn.functional.pad
    return TopKRows(
        ids=pad(ids[:, :k], (0, 2)),
        log_probs=pad(values[:, :k].log(), (0, 2), value=-torch.inf),
        dropped=values[:, k:].sum(-1),
        vocabulary=probs.shape[-1],
    )


@st.composite
def distributions(draw: st.DrawFn) -> tuple[Tensor, Tensor, int]:
    """Student and teacher probabilities [1, V], with ties, zeros and spikes, and a k."""
    width = draw(st.integers(1, 10))
    weight = st.one_of(st.sampled_from([0.0, 1.0, 1e-9, 1e9]), st.floats(0, 10))
    sides = []
    for _ in range(2):
        weights = draw(st.lists(weight, min_size=width, max_size=width))
        weights[draw(st.integers(0, width - 1))] = draw(st.floats(0.1, 10))
        side = torch.tensor([weights], dtype=torch.float64)
        sides.append(side / side.sum())
    return sides[0], sides[1], draw(st.integers(1, width))


@given(distributions())
def test_the_bound_on_truncated_uld_is_never_violated(case: tuple[Tensor, Tensor, int]) -> None:
    student, teacher, k = case
    truncated = top_k(teacher, k)
    error = (uld(student.log(), truncated) - uld(student.log(), teacher.log())).abs()
    assert (error <= truncated.dropped + 1e-12).all()


@pytest.mark.parametrize("student", [[1.0, 0.0, 0.0, 0.0], [0.6, 0.2, 0.1, 0.1]])
def test_the_bound_on_truncated_uld_is_reached(student: list[float]) -> None:
    """A student without a tail, and one with the teacher's own: no smaller bound holds."""
    teacher = torch.tensor([[0.6, 0.2, 0.1, 0.1]], dtype=torch.float64)
    student_logits = torch.tensor([student], dtype=torch.float64).log()
    truncated = top_k(teacher, 2)
    error = (uld(student_logits, truncated) - uld(student_logits, teacher.log())).abs()
    torch.testing.assert_close(error, truncated.dropped)


@given(distributions())
def test_truncated_forward_kl_is_a_lower_bound_and_no_less_than_zero(
    case: tuple[Tensor, Tensor, int],
) -> None:
    student, teacher, k = case
    truncated = forward_kl(student.log(), top_k(teacher, k))
    assert (truncated <= forward_kl(student.log(), teacher.log()) + 1e-12).all()
    assert (truncated >= -1e-12).all()


def test_what_truncated_forward_kl_misses_is_the_divergence_among_the_dropped() -> None:
    torch.manual_seed(0)
    student, teacher = torch.randn(2, 5, 9, dtype=torch.float64).softmax(-1)
    truncated, order = top_k(teacher, 4), teacher.argsort(descending=True)
    tail = torch.zeros_like(teacher, dtype=torch.bool).scatter(-1, order[:, 4:], True)
    p, q = (
        side[tail].view(5, 5) / side[tail].view(5, 5).sum(-1, True) for side in (teacher, student)
    )
    missed = truncated.dropped * (p * (p / q).log()).sum(-1)
    full = forward_kl(student.log(), teacher.log())
    torch.testing.assert_close(forward_kl(student.log(), truncated) + missed, full)


@given(distributions())
def test_stored_tokens_and_the_rest_are_a_distribution_on_either_side(
    case: tuple[Tensor, Tensor, int],
) -> None:
    """Padding counts on neither, or a token would count twice."""
    student, teacher, k = case
    for side in common_log_probs(student.log(), top_k(teacher, k)):
        torch.testing.assert_close(side.exp().sum(-1), torch.ones(1).double())


@given(distributions())
def test_gradients_on_a_truncated_teacher_are_finite(case: tuple[Tensor, Tensor, int]) -> None:
    student, teacher, k = case
    for loss in (uld, forward_kl):
        logits = student.log().requires_grad_()
        loss(logits, top_k(teacher, k)).sum().backward()
        assert logits.grad is not None and logits.grad.isfinite().all()


@pytest.mark.parametrize("name", WITH_TEACHER)
def test_a_store_that_drops_nothing_gives_the_dense_loss_at_every_temperature(name: str) -> None:
    batch = batch_for(name)
    for temperature in (1.0, 2.0):
        dense = batch.loss(name, temperature=temperature)
        full = stored(batch, epsilon=0.0).loss(name, temperature=temperature)
        torch.testing.assert_close(full, dense, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    "name", [name for name in WITH_TEACHER if loss_info(name).truncation != "unaffected"]
)
def test_the_stored_loss_approaches_the_dense_one_as_epsilon_does_zero(name: str) -> None:
    batch = batch_for(name)
    dense, gradient = batch.loss(name), batch.gradient(name)
    errors, angles = [], []
    for epsilon in (0.3, 0.1, 0.03, 0.01, 0.0):
        truncated = stored(batch, epsilon)
        errors.append((truncated.loss(name) - dense).abs().item())
        angles.append((truncated.gradient(name) - gradient).norm().item())
    size, length = min(1.0, dense.item()), min(1.0, gradient.norm().item())
    assert errors[0] > 1e-3 * size and errors[-1] < 1e-6
    assert angles[0] > 1e-3 * length and angles[-1] < 1e-6
    assert errors[-2] < errors[0] and angles[-2] < angles[0]


@pytest.mark.parametrize("name", sorted(set(WITH_TEACHER) - STOPPED_GRADIENT))
@pytest.mark.parametrize("epsilon", [0.0, 0.2])
def test_gradient_is_right_on_stored_logits(name: str, epsilon: float) -> None:
    batch = stored(batch_for(name), epsilon)
    logits = batch.student_logits.clone().requires_grad_()
    assert torch.autograd.gradcheck(
        lambda z: replace(batch, student_logits=z).loss(name),
        logits,
    )


@pytest.mark.parametrize("name", WITH_TEACHER)
def test_a_truncated_teacher_has_no_other_temperature(name: str) -> None:
    truncated = stored(batch_for(name), epsilon=0.2)
    with pytest.raises(LossError, match="temperature"):
        truncated.loss(name, temperature=2.0)
    truncated.loss(name, temperature=2.0, teacher_temperature=1.0)


def test_a_store_may_keep_more_tokens_than_the_student_has() -> None:
    student = torch.tensor([[0.7, 0.3]], dtype=torch.float64).log()
    teacher = torch.tensor([[0.4, 0.3, 0.2, 0.1]], dtype=torch.float64)
    torch.testing.assert_close(uld(student, top_k(teacher, 4)), uld(student, teacher.log()))
