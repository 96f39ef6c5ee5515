"""CALD: which divergence which rows get, and how they add up."""

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from kd.errors import LossError
from kd.losses import Extras
from kd.losses.contrastive import cald
from kd.losses.skew import skew_kl, skew_reverse_kl
from tests.losses.batches import same_tokenizer
from tests.losses.test_truncation import distributions, top_k

OWN = torch.tensor([True, False, False, True])


def two_sides() -> tuple[Tensor, Tensor]:
    torch.manual_seed(0)
    student, teacher = torch.randn(2, 4, 6, dtype=torch.float64)
    return student, teacher


def test_rows_get_the_divergence_of_their_author() -> None:
    student, teacher = two_sides()
    values = cald(student, teacher, OWN, skew=0.2, student_weight=0.5)
    expected = torch.where(
        OWN,
        0.5 * skew_reverse_kl(student, teacher, skew=0.2),
        1.5 * skew_kl(student, teacher, skew=0.2),
    )
    torch.testing.assert_close(values, expected)


def test_a_row_by_hand() -> None:
    """Both sides fair and 3 : 1, skew 1/2: the mixture is 5 : 3."""
    fair = torch.zeros(1, 2, dtype=torch.float64)
    biased = torch.tensor([[0.75, 0.25]], dtype=torch.float64).log()
    reverse = cald(fair, biased, torch.tensor([True]), skew=0.5).item()
    forward = cald(fair, biased, torch.tensor([False]), skew=0.5).item()
    assert reverse == pytest.approx((math.log(4 / 5) + math.log(4 / 3)) / 2)
    assert forward == pytest.approx(0.75 * math.log(6 / 5) + 0.25 * math.log(2 / 3))


def test_a_batch_of_both_is_the_papers_objective() -> None:
    """As many sequences of either kind: 1/2 ((2 - b) SKL + b SRKL), each a mean of sequences."""
    batch = same_tokenizer()  # two sequences, of which the student wrote the second
    both = batch.loss("cald", reduction="sequence", student_weight=0.8)
    forward, reverse = batch.sequence(0).loss("skew_kl"), batch.sequence(1).loss("skew_reverse_kl")
    torch.testing.assert_close(both, (1.2 * forward + 0.8 * reverse) / 2)


def test_where_nobody_says_who_wrote_the_teacher_did() -> None:
    batch = replace(same_tokenizer(), extras=Extras())
    torch.testing.assert_close(batch.loss("cald"), batch.loss("skew_kl"))


def test_detaching_concerns_the_gradient_on_the_students_text_only() -> None:
    student, teacher = two_sides()
    found = []
    for detach in (False, True):
        logits = student.clone().requires_grad_()
        values = cald(logits, teacher, OWN, detach_mixture=detach)
        values.sum().backward()
        assert logits.grad is not None
        found.append((values.detach(), logits.grad))
    assert torch.equal(found[0][0], found[1][0])
    assert torch.equal(found[0][1][~OWN], found[1][1][~OWN])
    assert not torch.isclose(found[0][1][OWN], found[1][1][OWN]).any()


@given(distributions(), st.booleans(), st.floats(0, 2))
def test_the_bound_on_a_truncated_teacher_is_never_violated(
    case: tuple[Tensor, Tensor, int], own: bool, weight: float
) -> None:
    student, teacher, k = case
    truncated = top_k(teacher, k)
    sides = (student.log(), torch.tensor([own]))
    full, stored = (
        cald(sides[0], side, sides[1], skew=0.1, student_weight=weight)
        for side in (teacher.log(), truncated)
    )
    dropped = truncated.dropped
    bound = weight * 9 * dropped if own else (2 - weight) * -torch.xlogy(dropped, 0.1 * dropped)
    assert (full - stored >= -1e-12).all() and (full - stored <= bound + 1e-12).all()


@pytest.mark.parametrize("options", [{"student_weight": 2.5}, {"student_weight": -1}, {"skew": 0}])
def test_options_out_of_range_are_refused(options: dict[str, float]) -> None:
    with pytest.raises(LossError, match=next(iter(options))):
        cald(*two_sides(), OWN, **options)
