"""What every same-vocabulary divergence is: 0 for identical models, never negative, finite."""

import importlib
import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from torch import Tensor

from kd.losses import loss_info
from kd.losses.generators import GENERATORS
from tests.losses.test_divergences import one_row, two_rows
from tests.losses.test_truncation import distributions, top_k

DIVERGENCES: list[tuple[str, dict[str, Any]]] = [
    ("forward_kl", {}),
    ("reverse_kl", {}),
    ("symmetric_kl", {"forward_weight": 0.3}),
    ("adaptive_kl", {"head_rule": "prefix"}),
    ("adaptive_kl", {"head_rule": "crossing"}),
    ("balanced_kl", {}),
    ("decoupled_kl", {}),
    ("jensen_shannon", {"teacher_weight": 0.3}),
    ("jensen_shannon", {"teacher_weight": 0.9, "scaled": True}),
    ("total_variation", {}),
    ("alpha_divergence", {"alpha": 0.3}),
    *[("f_divergence", {"generator": name}) for name in GENERATORS],
    *[
        ("alpha_beta", {"alpha": alpha, "beta": beta})
        for alpha, beta in [(0.2, 0.7), (1.0, 0.0), (0.0, 0.6), (0.3, -0.3), (0.0, 0.0), (1.0, 1.0)]
    ],
]
NAMES = [" ".join([name, *map(str, options.values())]) for name, options in DIVERGENCES]
every_divergence = pytest.mark.parametrize(("name", "options"), DIVERGENCES, ids=NAMES)


def value(name: str, student: Tensor, teacher: Any, options: dict[str, Any]) -> Tensor:
    """The loss itself, on rows; where it needs targets, they are the first token."""
    info = loss_info(name)
    loss = getattr(importlib.import_module(info.module), info.function)
    given = {"student": student, "teacher": teacher}
    if "targets" in info.needs:
        given["targets"] = torch.zeros(len(student), dtype=torch.int64)
    result: Tensor = loss(**given, **options)
    return result


@every_divergence
@given(row=one_row())
@settings(max_examples=30)
def test_identical_models_give_0_with_a_zero_gradient(
    name: str, options: dict[str, Any], row: Tensor
) -> None:
    student = row.clone().requires_grad_()
    result = value(name, student, row, options)
    result.sum().backward()
    torch.testing.assert_close(result.detach(), torch.zeros(1).double(), rtol=0, atol=1e-12)
    torch.testing.assert_close(student.grad, torch.zeros_like(row), rtol=0, atol=1e-12)


@every_divergence
@given(pair=two_rows())
@settings(max_examples=30)
def test_other_models_give_no_less_and_no_nan(
    name: str, options: dict[str, Any], pair: tuple[Tensor, Tensor]
) -> None:
    """Tokens that one side excludes may make the value infinite, never undefined."""
    assert value(name, *pair, options).item() >= -1e-12
    different = (pair[0].softmax(-1) - pair[1].softmax(-1)).abs().max() > 0.1
    if different:
        assert value(name, *pair, options).item() > 1e-6


@every_divergence
@given(pair=two_rows())
@settings(max_examples=30)
def test_columns_that_both_exclude_change_nothing(
    name: str, options: dict[str, Any], pair: tuple[Tensor, Tensor]
) -> None:
    student, teacher = (side.clamp(min=-30.0) for side in pair)
    pad = torch.nn.functional.pad
    padded = pad(student, (0, 2), value=-math.inf).requires_grad_()
    result = value(name, padded, pad(teacher, (0, 2), value=-math.inf), options)
    result.sum().backward()
    own = student.clone().requires_grad_()
    expected = value(name, own, teacher, options)
    expected.sum().backward()
    torch.testing.assert_close(result, expected)
    assert own.grad is not None and padded.grad is not None
    torch.testing.assert_close(padded.grad[:, :-2], own.grad, rtol=1e-7, atol=1e-10)
    assert torch.equal(padded.grad[:, -2:], torch.zeros(1, 2).double())


@every_divergence
@given(case=distributions())
@settings(max_examples=30)
def test_a_finite_value_has_a_finite_gradient_on_a_truncated_teacher(
    name: str, options: dict[str, Any], case: tuple[Tensor, Tensor, int]
) -> None:
    student, teacher, k = case
    logits = student.log().requires_grad_()
    result = value(name, logits, top_k(teacher, k), options)
    assert not result.isnan().any()
    if result.isfinite().all():
        result.sum().backward()
        assert logits.grad is not None and logits.grad.isfinite().all()
