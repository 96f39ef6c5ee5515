"""Rows evaluated a few at a time: what must not depend on how many, and what is refused."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from kd.errors import LossError
from kd.losses import Conventions, chunked, distillation_loss, loss_info
from kd.losses.distillation import DistillationLoss
from tests.losses.batches import Batch, batch_for


def evaluate(body, batch: Batch, **changes) -> tuple[torch.Tensor, torch.Tensor]:
    """Value and gradient of a function in the place of `forward_kl`, one row at a time."""
    info = replace(loss_info("forward_kl"), **changes)
    logits = batch.student_logits.clone().requires_grad_()
    loss = DistillationLoss(info, body, Conventions())
    value = loss(logits, *batch.tensors[1:], extras=batch.extras)
    value.backward()
    return value.detach(), logits.grad


@pytest.fixture(autouse=True)
def one_row_at_a_time(monkeypatch):
    monkeypatch.setattr(chunked, "CHUNK_BYTES", 1)


def squares(student, teacher):
    return (student.softmax(-1) - teacher.softmax(-1)).square().sum(-1)


def test_the_number_of_rows_at_a_time_changes_nothing(monkeypatch):
    batch = batch_for("forward_kl")
    value, gradient = evaluate(squares, batch)
    monkeypatch.setattr(chunked, "CHUNK_BYTES", 1 << 20)
    assert all(map(torch.allclose, evaluate(squares, batch), (value, gradient)))


def batch_on(device: str) -> SimpleNamespace:
    """As much of a batch as chunks are made by; the device `meta` stands for a GPU."""
    places = (torch.tensor([0, 1], device=device), torch.tensor([2, 3], device=device))
    return SimpleNamespace(
        dtype=torch.float32,
        logits=torch.zeros(2, 4, 1024, device=device),
        sequence=places[0],
        part=lambda rows: SimpleNamespace(places=places),
    )


def test_a_gpu_has_larger_chunks(monkeypatch):
    monkeypatch.setattr(chunked, "CHUNK_BYTES", 1 << 20)
    assert chunked.rows_at_once(batch_on("cpu")) == 256
    assert chunked.rows_at_once(batch_on("meta")) == 65536


def test_a_gradient_is_scaled_without_a_look_at_the_factor():
    gradient = chunked._RowGradient(batch_on("meta"))
    scaled = gradient.scaled(torch.zeros((), device="meta"))  # whose item() would raise
    assert scaled.shape == (2, 4, 1024)
    on_cpu = chunked._RowGradient(batch_on("cpu"))
    on_cpu._dense += 3
    assert on_cpu.scaled(torch.tensor(2.0))[0, 2, 0] != 3


def test_a_value_of_the_whole_batch_is_refused_unless_it_is_declared():
    def mean(student, teacher):
        return squares(student, teacher).mean()

    batch = batch_for("forward_kl")
    with pytest.raises(LossError, match='rows="batch"'):
        evaluate(mean, batch)
    value, gradient = evaluate(mean, batch, rows="batch")
    expected = evaluate(squares, batch)
    torch.testing.assert_close((value, gradient), expected)


def test_a_gradient_through_other_rows_is_never_lost():
    def whole(student, spans):
        return student.sum(-1) * 0 - spans.student.whole

    batch = batch_for("forward_kl")
    with pytest.raises(LossError, match='rows="batch"'):
        evaluate(whole, batch, needs=("student", "spans"))
    value, gradient = evaluate(whole, batch, needs=("student", "spans"), rows="batch")
    torch.testing.assert_close(value, batch.loss("cross_entropy"))
    torch.testing.assert_close(gradient, batch.gradient("cross_entropy"))


def test_a_second_derivative_is_refused_rather_than_wrong():
    batch = batch_for("forward_kl")
    logits = batch.student_logits.clone().requires_grad_()
    value = replace(batch, student_logits=logits).loss("forward_kl")
    with pytest.raises(LossError, match="create_graph"):
        torch.autograd.grad(value, logits, create_graph=True)


def test_a_graph_may_be_walked_twice():
    batch = batch_for("uld")
    logits = batch.student_logits.clone().requires_grad_()
    value = replace(batch, student_logits=logits).loss("uld")
    first, second = (torch.autograd.grad(3 * value, logits, retain_graph=True)[0] for _ in "ab")
    assert torch.equal(first, second)
    torch.testing.assert_close(first, 3 * batch.gradient("uld"))


def test_large_gradients_are_the_same_as_small_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    """They come from the system, not from the heap, and can be written to like any others."""
    labels = torch.tensor([[-100, -100, 1, 2], [-100, 3, -100, -100]])
    teacher = torch.randn(2, 4, 9)
    gradients = []
    for least in (1 << 30, 1):
        monkeypatch.setattr("kd.losses.chunked.LARGE_BYTES", least)
        logits = torch.linspace(-2, 2, 72).reshape(2, 4, 9).requires_grad_()
        distillation_loss("uld", logits, teacher, labels, labels).backward()
        assert logits.grad is not None
        gradients.append(logits.grad.mul_(2))
    assert gradients[0].abs().max() > 0 and torch.equal(*gradients)
