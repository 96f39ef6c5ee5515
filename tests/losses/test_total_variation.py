"""Total variation: its bounds, and what a truncated teacher does to it."""

import pytest
import torch
from hypothesis import given, settings
from torch import Tensor

from kd.losses.kl import forward_kl
from kd.losses.total_variation import total_variation
from tests.losses.batches import uld
from tests.losses.test_divergences import two_rows
from tests.losses.test_truncation import distributions, top_k


def test_it_is_half_of_the_l1_distance() -> None:
    student = torch.tensor([[0.2, 0.3, 0.5]], dtype=torch.float64).log()
    teacher = torch.tensor([[0.6, 0.1, 0.3]], dtype=torch.float64).log()
    assert total_variation(student, teacher).item() == pytest.approx(0.4, rel=1e-14)


@given(two_rows())
@settings(max_examples=50)
def test_it_lies_between_half_of_uld_and_1_and_obeys_pinsker(pair: tuple[Tensor, Tensor]) -> None:
    value = total_variation(*pair)
    assert -1e-12 <= value.item() <= 1 + 1e-12
    assert (2 * value >= uld(*pair) - 1e-12).all()
    assert (2 * value.square() <= forward_kl(*pair) + 1e-12).all()
    torch.testing.assert_close(total_variation(pair[1], pair[0]), value, rtol=0, atol=1e-12)


@given(distributions())
@settings(max_examples=50)
def test_truncation_lowers_it_by_the_dropped_mass_at_most(
    case: tuple[Tensor, Tensor, int],
) -> None:
    student, teacher, k = case
    truncated = top_k(teacher, k)
    error = total_variation(student.log(), teacher.log()) - total_variation(
        student.log(), truncated
    )
    assert (error >= -1e-12).all() and (error <= truncated.dropped + 1e-12).all()


def test_the_bound_on_what_truncation_misses_is_reached() -> None:
    """By sides of equal mass on the dropped tokens that share none of them."""
    teacher = torch.tensor([[0.6, 0.2, 0.2, 0.0, 0.0]], dtype=torch.float64)
    student = torch.tensor([[0.6, 0.0, 0.0, 0.2, 0.2]], dtype=torch.float64)
    truncated = top_k(teacher, 1)
    assert total_variation(student.log(), truncated).item() == pytest.approx(0.0, abs=1e-15)
    full = total_variation(student.log(), teacher.log())
    torch.testing.assert_close(full, truncated.dropped)
