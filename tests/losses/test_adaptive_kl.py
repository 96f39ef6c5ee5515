"""KL divergences whose weights depend on the token: by head and tail, and by entropy."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from kd.errors import LossError
from kd.losses.adaptive_kl import adaptive_kl, balanced_kl
from kd.losses.kl import forward_kl, reverse_kl
from kd.losses.teacher import TopKRows
from tests.losses.test_divergences import one_row, two_rows

P = [0.4, 0.3, 0.2, 0.1]
Q = [0.7, 0.05, 0.05, 0.2]
TEACHER, STUDENT = torch.tensor([[P], [Q]], dtype=torch.float64).log()


def by_hand(head: int) -> float:
    """The loss if the first `head` of the four tokens are the head."""
    gaps = [abs(p - q) for p, q in zip(P, Q, strict=True)]
    share = sum(gaps[:head]) / sum(gaps)
    forward = sum(p * math.log(p / q) for p, q in zip(P, Q, strict=True))
    reverse = sum(q * math.log(q / p) for p, q in zip(P, Q, strict=True))
    return share * forward + (1 - share) * reverse


@pytest.mark.parametrize(
    ("mass", "rule", "head"),
    [
        (0.5, "prefix", 1),  # 0.4 + 0.3 crosses 0.5 and is tail
        (0.5, "crossing", 2),  # and head
        (0.2, "prefix", 1),  # the likeliest is always head
        (0.2, "crossing", 1),
        (0.75, "prefix", 2),
        (0.75, "crossing", 3),
        (0.95, "prefix", 3),
        (0.95, "crossing", 4),
    ],
)
def test_the_head_is_cut_as_the_rule_says(mass: float, rule: str, head: int) -> None:
    order = torch.tensor([2, 0, 3, 1])  # whatever the ids are
    value = adaptive_kl(STUDENT[:, order], TEACHER[:, order], head_mass=mass, head_rule=rule)
    assert abs(by_hand(head) - by_hand(head - 1)) > 1e-3  # a wrong head has another value
    assert value.item() == pytest.approx(by_hand(head), rel=1e-12)


@pytest.mark.parametrize("rule", ["prefix", "crossing"])
def test_a_token_at_which_the_mass_is_exact_ends_the_head(rule: str) -> None:
    teacher = torch.tensor([[0.5, 0.25, 0.25]], dtype=torch.float64).log()
    student = torch.tensor([[0.2, 0.3, 0.5]], dtype=torch.float64).log()
    share = 0.3 / 0.6
    expected = share * forward_kl(student, teacher) + (1 - share) * reverse_kl(student, teacher)
    value = adaptive_kl(student, teacher, head_mass=0.5, head_rule=rule)
    torch.testing.assert_close(value, expected)


@given(two_rows(), st.floats(0, 1), st.sampled_from(["prefix", "crossing"]))
@settings(max_examples=50)
def test_it_lies_between_both_divergences_and_weighs_their_gradients(
    pair: tuple[Tensor, Tensor], mass: float, rule: str
) -> None:
    student, teacher = (side.clamp(min=-50.0).requires_grad_() for side in pair)
    parts = forward_kl(student, teacher), reverse_kl(student, teacher)
    slopes = [torch.autograd.grad(part.sum(), student)[0] for part in parts]
    value = adaptive_kl(student, teacher, head_mass=mass, head_rule=rule)
    (slope,) = torch.autograd.grad(value.sum(), student)
    low, high = sorted(part.item() for part in parts)
    assert low - 1e-9 <= value.item() <= high + 1e-9
    if high - low > 1e-6:
        share = (value - parts[1]) / (parts[0] - parts[1])
        torch.testing.assert_close(
            slope, share * slopes[0] + (1 - share) * slopes[1], rtol=1e-6, atol=1e-9
        )


def test_the_two_rules_differ() -> None:
    rows = torch.tensor([[2.0, 1.0, 0.0, -1.0]], dtype=torch.float64)
    student = torch.tensor([[0.0, 3.0, 0.0, 0.0]], dtype=torch.float64)
    values = [
        adaptive_kl(student, rows, head_mass=0.7, head_rule=rule).item()
        for rule in ("prefix", "crossing")
    ]
    assert abs(values[0] - values[1]) > 1e-2


def test_dropped_tokens_are_tail_though_they_outweigh_the_stored_ones() -> None:
    """The rest has 0.6 of the mass, and still comes after all that is stored."""
    rows = TopKRows(
        torch.tensor([[1, 0]]),
        torch.tensor([[0.3, 0.1]], dtype=torch.float64).log(),
        torch.tensor([0.6], dtype=torch.float64),
        5,
    )
    student = torch.tensor([[0.2, 0.2, 0.2, 0.2, 0.2]], dtype=torch.float64).log()
    merged = torch.tensor([[0.2, 0.2, 0.6]], dtype=torch.float64).log()
    teacher = torch.tensor([[0.3, 0.1, 0.6]], dtype=torch.float64).log()
    value = adaptive_kl(student, rows, head_mass=0.35)
    share = 0.1 / 0.2
    expected = share * forward_kl(merged, teacher) + (1 - share) * reverse_kl(merged, teacher)
    torch.testing.assert_close(value, expected)


@pytest.mark.parametrize("options", [{"head_mass": 1.5}, {"head_rule": "suffix"}])
def test_undefined_heads_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(LossError, match="head_"):
        adaptive_kl(STUDENT, TEACHER, **options)


@given(one_row(), st.sampled_from(["prefix", "crossing"]))
@settings(max_examples=50)
def test_identical_models_give_0_and_no_nan(row: Tensor, rule: str) -> None:
    student = row.clone().requires_grad_()
    value = adaptive_kl(student, row, head_rule=rule)
    value.sum().backward()
    assert value.item() == 0.0
    torch.testing.assert_close(student.grad, torch.zeros_like(row), rtol=0, atol=1e-12)


# --- balanced KL ----------------------------------------------------------------------------


def test_balanced_kl_weighs_the_side_of_larger_entropy() -> None:
    peaked = torch.tensor([[0.8, 0.1, 0.1]], dtype=torch.float64).log()
    flat = torch.tensor([[0.3, 0.3, 0.4]], dtype=torch.float64).log()
    for student, teacher in ((peaked, flat), (flat, peaked)):
        forward, reverse = forward_kl(student, teacher), reverse_kl(student, teacher)
        of_teacher, of_student = (3.0, 1.0) if teacher is flat else (1.0, 3.0)
        value = balanced_kl(student, teacher, weight=3.0)
        torch.testing.assert_close(value, of_teacher * forward + of_student * reverse)


@given(two_rows())
@settings(max_examples=50)
def test_balanced_kl_of_weight_1_is_the_sum_of_both(pair: tuple[Tensor, Tensor]) -> None:
    student, teacher = pair
    expected = forward_kl(student, teacher) + reverse_kl(student, teacher)
    torch.testing.assert_close(balanced_kl(student, teacher, weight=1.0), expected)
