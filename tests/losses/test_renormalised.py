"""Renormalised top-k: its definition, and the bias for which it has a name of its own."""

import pytest
import torch
from hypothesis import given, settings
from torch import Tensor

from kd.losses import available_losses
from kd.losses.kl import forward_kl
from kd.losses.renormalised import renormalised_kl
from tests.losses.test_divergences import two_rows
from tests.losses.test_truncation import distributions, top_k


def test_a_value_by_hand() -> None:
    teacher = torch.tensor([[0.6, 0.2, 0.15, 0.05]], dtype=torch.float64)
    student = torch.tensor([[0.5, 0.2, 0.2, 0.1]], dtype=torch.float64)
    expected = 0.75 * torch.tensor(0.75 / 0.5).log() + 0.25 * torch.tensor(0.25 / 0.2).log()
    found = renormalised_kl(student.log(), top_k(teacher, 2)).item()
    assert found == pytest.approx(expected.item(), rel=1e-6)


@given(two_rows())
@settings(max_examples=50)
def test_on_a_dense_teacher_it_is_forward_kl(pair: tuple[Tensor, Tensor]) -> None:
    torch.testing.assert_close(renormalised_kl(*pair), forward_kl(*pair))


@given(distributions())
@settings(max_examples=50)
def test_a_student_equal_to_the_teacher_is_pushed_away_by_twice_the_dropped_mass(
    case: tuple[Tensor, Tensor, int],
) -> None:
    _, teacher, k = case
    truncated = top_k(teacher, k)
    logits = teacher.log().requires_grad_()
    renormalised_kl(logits, truncated).sum().backward()
    assert logits.grad is not None
    assert logits.grad.abs().sum().item() == pytest.approx(2 * truncated.dropped.item(), abs=1e-9)


def test_no_other_loss_leaves_the_tail_out() -> None:
    info = available_losses()["renormalised_kl"]
    assert info.truncation == "unbounded" and not info.certified_under({})
