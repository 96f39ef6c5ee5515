"""Power means in log space: their definition, their limit, their gradients."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from kd.losses.mixtures import log_mixture, log_power_mean
from tests.losses.test_divergences import two_rows

WEIGHT = st.floats(0.01, 0.99)
EXPONENT = st.floats(-3, 3)


def test_the_mean_of_two_numbers_by_hand() -> None:
    log_p, log_q = (torch.tensor([[value]], dtype=torch.float64).log() for value in (0.9, 0.1))
    for exponent, expected in [
        (1.0, 0.25 * 0.9 + 0.75 * 0.1),
        (0.5, (0.25 * math.sqrt(0.9) + 0.75 * math.sqrt(0.1)) ** 2),
        (0.0, 0.9**0.25 * 0.1**0.75),
        (-1.0, 1 / (0.25 / 0.9 + 0.75 / 0.1)),
    ]:
        mean = log_power_mean(log_p, log_q, 0.25, exponent).exp().item()
        assert mean == pytest.approx(expected, rel=1e-14)


@given(two_rows(), WEIGHT)
@settings(max_examples=50)
def test_a_mixture_excludes_what_both_sides_do(pair: tuple[Tensor, Tensor], weight: float) -> None:
    log_p, log_q = (side.log_softmax(-1) for side in pair)
    mixture = log_mixture(log_p, log_q, weight)
    expected = weight * log_p.exp() + (1 - weight) * log_q.exp()
    torch.testing.assert_close(mixture.exp(), expected, rtol=1e-12, atol=0)
    assert torch.equal(mixture == -math.inf, (log_p == -math.inf) & (log_q == -math.inf))


@given(two_rows(), WEIGHT, EXPONENT)
@settings(max_examples=50)
def test_the_mean_lies_between_both_sides(
    pair: tuple[Tensor, Tensor], weight: float, exponent: float
) -> None:
    log_p, log_q = pair
    mean = log_power_mean(log_p, log_q, weight, exponent)
    excluded = (log_p == -math.inf) | (log_q == -math.inf)
    if exponent > 0:
        assert torch.equal(mean == -math.inf, (log_p == -math.inf) & (log_q == -math.inf))
    else:
        assert torch.equal(mean == -math.inf, excluded)
    inside = (torch.minimum(log_p, log_q) - 1e-12 <= mean) & (
        mean <= torch.maximum(log_p, log_q) + 1e-12
    )
    assert inside[~excluded].all()


@given(two_rows(), WEIGHT, EXPONENT)
@settings(max_examples=50)
def test_gradients_are_shares_of_the_outcome(
    pair: tuple[Tensor, Tensor], weight: float, exponent: float
) -> None:
    """d ln M / d ln p = w p^e / (w p^e + (1 - w) q^e); that of q is the rest."""
    log_p, log_q = (side.clone().requires_grad_() for side in pair)
    mean = log_power_mean(log_p, log_q, weight, exponent)
    allowed = mean > -math.inf
    mean.masked_fill(~allowed, 0.0).sum().backward()
    assert log_p.grad is not None and log_q.grad is not None
    torch.testing.assert_close(log_p.grad + log_q.grad, allowed.double())
    odds = exponent * (log_p - log_q).detach() + math.log(weight / (1 - weight))
    share = odds.sigmoid()
    usable = allowed & share.isfinite()
    torch.testing.assert_close(log_p.grad[usable], share[usable], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("exponent", [1e-16, 1e-12, 1e-9, 1e-5, -1e-16, -1e-9, -1e-5])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_no_digits_are_lost_near_the_geometric_mean(exponent: float, dtype: torch.dtype) -> None:
    """To first order in e, ln M = w ln p + (1 - w) ln q + e w (1 - w) (ln p - ln q)^2 / 2."""
    log_p = torch.tensor([[-0.1, -9.0, -3.0]], dtype=torch.float64)
    log_q = torch.tensor([[-4.0, -0.5, -3.0]], dtype=torch.float64)
    expected = 0.3 * log_p + 0.7 * log_q + exponent * 0.3 * 0.7 * (log_p - log_q) ** 2 / 2
    mean = log_power_mean(log_p.to(dtype), log_q.to(dtype), 0.3, exponent)
    tolerance = 1e-6 if dtype == torch.float32 else 1e-8
    torch.testing.assert_close(mean.double(), expected, rtol=0, atol=tolerance)


@pytest.mark.parametrize("exponent", [-500.0, -1.0, 0.0, 1.0, 500.0])
def test_extreme_logits_and_exponents_do_not_overflow(exponent: float) -> None:
    log_p = torch.tensor([[0.0, -2000.0, -1000.0]], requires_grad=True)
    mean = log_power_mean(log_p, torch.tensor([[-2000.0, 0.0, -1000.0]]), 0.5, exponent)
    mean.sum().backward()
    assert mean.isfinite().all()
    assert log_p.grad is not None and log_p.grad.isfinite().all()


@pytest.mark.parametrize("exponent", [-1.0, 0.0, 1.0])
def test_a_weight_of_0_or_1_is_one_side_itself(exponent: float) -> None:
    log_p, log_q = torch.tensor([[0.0, -math.inf]]), torch.tensor([[-math.inf, 0.0]])
    assert torch.equal(log_power_mean(log_p, log_q, 1.0, exponent), log_p)
    assert torch.equal(log_power_mean(log_p, log_q, 0.0, exponent), log_q)
