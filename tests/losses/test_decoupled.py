"""Decoupled KL: what it is the parts of, and which part a truncated target belongs to."""

import math

import pytest
import torch
from hypothesis import given, settings
from torch import Tensor

from kd.losses.decoupled import decoupled_kl
from kd.losses.kl import forward_kl
from kd.losses.teacher import TopKRows
from tests.losses.test_truncation import distributions, top_k


def test_both_parts_by_hand() -> None:
    student = torch.tensor([[0.5, 0.3, 0.2]], dtype=torch.float64).log()
    teacher = torch.tensor([[0.6, 0.1, 0.3]], dtype=torch.float64).log()
    target = torch.tensor([0])
    of_target = 0.6 * math.log(0.6 / 0.5) + 0.4 * math.log(0.4 / 0.5)
    of_others = 0.25 * math.log(0.25 / 0.6) + 0.75 * math.log(0.75 / 0.4)
    value = decoupled_kl(student, teacher, target, target_weight=2.0, others_weight=3.0)
    assert value.item() == pytest.approx(2 * of_target + 3 * of_others, rel=1e-13)


@given(distributions())
@settings(max_examples=50)
def test_forward_kl_is_one_part_plus_the_other_weighted_by_the_teacher(
    case: tuple[Tensor, Tensor, int],
) -> None:
    student, teacher, k = case
    student = (student + 1e-3) / (student + 1e-3).sum()  # 0 times infinity is no part
    for rows in (teacher.log(), top_k(teacher, k)):
        target = torch.tensor([k - 1])
        parts = [
            decoupled_kl(
                student.log(), rows, target, target_weight=1.0 - part, others_weight=float(part)
            )
            for part in (0, 1)
        ]
        column = teacher[:, k - 1]
        if isinstance(rows, TopKRows) and not (rows.ids[0, :k] == k - 1).any():
            column = rows.dropped  # the target is in there
        rest = 1 - column
        total = parts[0] + torch.where(rest > 1e-12, rest * parts[1], 0.0)
        torch.testing.assert_close(forward_kl(student.log(), rows), total, rtol=1e-6, atol=1e-9)


def test_a_teacher_that_allows_the_target_only_says_nothing_of_the_others() -> None:
    student = torch.tensor([[0.5, 0.3, 0.2]], dtype=torch.float64).log().requires_grad_()
    teacher = torch.tensor([[0.0, -math.inf, -math.inf]], dtype=torch.float64)
    value = decoupled_kl(student, teacher, torch.tensor([0]), others_weight=8.0)
    value.sum().backward()
    assert value.item() == pytest.approx(math.log(2), rel=1e-13)
    assert student.grad is not None and student.grad.isfinite().all()


def test_padding_of_a_stored_row_is_not_the_target() -> None:
    """Padding has the id 0, which may be the target of another meaning."""
    student = torch.tensor([[0.2, 0.5, 0.3]], dtype=torch.float64).log()
    teacher = torch.tensor([[0.1, 0.6, 0.3]], dtype=torch.float64)
    target = torch.tensor([0])
    short, padded = top_k(teacher, 1), top_k(teacher, 1)
    short = TopKRows(short.ids[:, :1], short.log_probs[:, :1], short.dropped, 3)
    torch.testing.assert_close(
        decoupled_kl(student, padded, target), decoupled_kl(student, short, target)
    )
