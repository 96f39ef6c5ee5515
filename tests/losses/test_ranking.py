"""Ranking losses: pairs by hand and by loops, ties, exclusions, and top-k teachers."""

import math
from collections.abc import Callable
from itertools import combinations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from kd.errors import LossError
from kd.losses.ranking import hinge_ranking, logistic_ranking
from tests.losses.test_divergences import one_row
from tests.losses.test_truncation import distributions, top_k

STUDENT = torch.tensor([[0.1, 0.3, 0.2, 0.4]], dtype=torch.float64)
TEACHER = torch.tensor([[0.4, 0.3, 0.2, 0.1]], dtype=torch.float64)

Ranking = Callable[..., Tensor]
BOTH = pytest.mark.parametrize("loss", [hinge_ranking, logistic_ranking])


def test_both_by_hand_on_the_top_3() -> None:
    """Pairs (0, 1), (0, 2), (1, 2): the student leads by -0.2, -0.1 and 0.1."""
    student, teacher = STUDENT.log(), TEACHER.log()
    adaptive = hinge_ranking(student, teacher, k=3).item()
    assert adaptive == pytest.approx(((0.1 + 0.2) + (0.2 + 0.1) + 0.0) / 3)
    assert hinge_ranking(student, teacher, k=3, margin=0.05).item() == pytest.approx(0.4 / 3)
    logistic = logistic_ranking(student, teacher, k=3).item()
    assert logistic == pytest.approx((math.log(4) + math.log(3) + math.log(1 + 2 / 3)) / 3)


@given(distributions(), st.integers(2, 12), st.one_of(st.none(), st.floats(0, 1)))
@settings(max_examples=50)
def test_both_are_sums_over_pairs(
    case: tuple[Tensor, Tensor, int], k: int, margin: float | None
) -> None:
    student, teacher, _ = case
    q, p = student[0].tolist(), teacher[0].tolist()
    top = teacher[0].topk(min(k, len(p))).indices.tolist()
    hinge = logistic = 0.0
    for i, j in combinations(top, 2):
        if p[i] > p[j] > 0:
            hinge += max((p[i] - p[j] if margin is None else margin) - (q[i] - q[j]), 0.0)
            if q[j] > 0 or q[i] > 0:
                logistic += math.log1p(q[j] / q[i]) if q[i] > 0 else math.inf
            else:
                logistic += math.log(2)
    pairs, logits = k * (k - 1) / 2, teacher.log()
    found = hinge_ranking(student.log(), logits, k=k, margin=margin).item()
    assert found == pytest.approx(hinge / pairs, rel=1e-9, abs=1e-12)
    found = logistic_ranking(student.log(), logits, k=k).item()
    assert found == pytest.approx(logistic / pairs, rel=1e-9, abs=1e-12)


@given(one_row())
@settings(max_examples=50)
def test_the_teachers_own_margin_makes_the_hinge_zero_for_identical_models(row: Tensor) -> None:
    student = row.clone().requires_grad_()
    value = hinge_ranking(student, row)
    value.sum().backward()
    assert value.item() == 0.0
    assert torch.equal(student.grad, torch.zeros_like(row))


def test_a_fixed_margin_and_the_logistic_loss_are_no_divergences() -> None:
    teacher = TEACHER.log()
    assert hinge_ranking(teacher, teacher, margin=0.2).item() > 0
    assert logistic_ranking(teacher, teacher) > logistic_ranking(2 * teacher, teacher) > 0


@BOTH
def test_pairs_that_the_teacher_does_not_order_count_nothing(loss: Ranking) -> None:
    uniform = torch.zeros(1, 4, dtype=torch.float64)
    assert loss(STUDENT.log(), uniform).item() == 0.0
    certain = torch.tensor([[1.0, 0.0, 0.0, 0.0]], dtype=torch.float64).log()
    assert loss(STUDENT.log(), certain).item() == 0.0


@BOTH
def test_tokens_beyond_the_top_k_are_not_compared(loss: Ranking) -> None:
    other = torch.tensor([[0.4, 0.3, 0.25, 0.05]], dtype=torch.float64)
    swapped = STUDENT[:, [0, 1, 3, 2]]
    of_two = [loss(student.log(), other.log(), k=2) for student in (STUDENT, swapped)]
    of_four = [loss(student.log(), other.log(), k=4) for student in (STUDENT, swapped)]
    assert torch.isclose(*of_two) and not torch.isclose(*of_four)


@given(distributions(), st.integers(2, 12))
@settings(max_examples=50)
def test_gradients_are_finite_where_the_student_allows_what_the_teacher_does(
    case: tuple[Tensor, Tensor, int], k: int
) -> None:
    student, teacher, stored = case
    student = student.masked_fill((student == 0) & (teacher > 0), 1e-30)
    for loss in (hinge_ranking, logistic_ranking):
        for side in (teacher.log(), top_k(teacher, stored)):
            logits = student.log().requires_grad_()
            loss(logits, side, k=k).sum().backward()
            assert logits.grad is not None and logits.grad.isfinite().all()


def test_a_student_that_excludes_the_better_of_two_tokens_is_infinitely_wrong() -> None:
    """If it excludes both it has no opinion, which is a draw and has no gradient."""
    student = torch.tensor([[0.0, -math.inf, -math.inf, 1.0]], dtype=torch.float64)
    teacher = torch.tensor([[-math.inf, 1.0, 0.0, -math.inf]], dtype=torch.float64)
    student.requires_grad_()
    draw = logistic_ranking(student, teacher, k=2)
    draw.sum().backward()
    assert draw.item() == pytest.approx(math.log(2))
    assert torch.equal(student.grad, torch.zeros_like(teacher))
    assert logistic_ranking(student, teacher.roll(1, dims=-1), k=2).item() == math.inf


@BOTH
@given(case=distributions(), k=st.integers(2, 12))
@settings(max_examples=50)
def test_a_top_k_teacher_gives_a_lower_bound_and_all_of_it_with_k_tokens(
    loss: Ranking, case: tuple[Tensor, Tensor, int], k: int
) -> None:
    student, teacher, stored = case
    teacher = teacher + torch.arange(teacher.shape[-1]) * 1e-6  # no ties, so one top k only
    teacher = teacher / teacher.sum()
    full = loss(student.log(), teacher.log(), k=k).item()
    truncated = loss(student.log(), top_k(teacher, stored), k=k).item()
    assert truncated <= full + 1e-9
    if stored >= min(k, teacher.shape[-1]):
        assert truncated == pytest.approx(full, rel=1e-9, abs=1e-12)


@BOTH
def test_one_token_has_no_order(loss: Ranking) -> None:
    with pytest.raises(LossError, match="k is 1"):
        loss(STUDENT, TEACHER, k=1)


def test_a_negative_margin_is_refused() -> None:
    with pytest.raises(LossError, match="margin"):
        hinge_ranking(STUDENT, TEACHER, margin=-0.1)
