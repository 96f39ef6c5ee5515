"""Mixtures of two distributions, in log space."""

import math
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


def log_mixture(log_p: Tensor, log_q: Tensor, weight: float) -> Tensor:
    """ln(weight * p + (1 - weight) * q) of log-probabilities [N, M], as [N, M]."""
    return log_power_mean(log_p, log_q, weight, exponent=1.0)


def log_power_mean(log_p: Tensor, log_q: Tensor, weight: float, exponent: float) -> Tensor:
    """Logarithm of each outcome's weighted power mean, [N, M]; it is not normalised.

    ln (w p^e + (1 - w) q^e)^(1/e), w being the weight of p, and its limit w ln p + (1 - w) ln q
    for an exponent e of 0. With e <= 0 what one side excludes, the mean excludes; with
    e > 0 what both do. A weight of 0 or 1 gives one side itself. Values and gradients are
    precise for every e, however near to 0.
    """
    if weight in (0.0, 1.0):
        # Both sides stay in the graph: a gradient of 0 is a gradient.
        return torch.where(torch.full_like(log_p, weight == 1.0, dtype=torch.bool), log_p, log_q)
    mean: Tensor = _LogPowerMean.apply(log_p, log_q, weight, exponent)  # type: ignore[no-untyped-call]
    return mean


class _LogPowerMean(torch.autograd.Function):
    """The derivative in ln p is p's share of the sum, w p^e / (w p^e + (1 - w) q^e)."""

    @staticmethod
    def forward(ctx: Any, log_p: Tensor, log_q: Tensor, weight: float, exponent: float) -> Tensor:
        excluded = _excluded(log_p, log_q, exponent)
        log_p, log_q = log_p.masked_fill(excluded, 0.0), log_q.masked_fill(excluded, 0.0)
        power_gap = exponent * (log_p - log_q)
        ctx.save_for_backward(power_gap + math.log(weight / (1 - weight)), excluded)
        if exponent == 0:
            mean = weight * log_p + (1 - weight) * log_q
        else:
            mean = torch.maximum(log_p, log_q) if exponent > 0 else torch.minimum(log_p, log_q)
            mean += _beside_the_larger(power_gap, weight) / exponent
        return mean.masked_fill_(excluded, -torch.inf)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        log_odds, excluded = ctx.saved_tensors
        gradient = gradient.masked_fill(excluded, 0.0)
        by_p = gradient * log_odds.sigmoid() if ctx.needs_input_grad[0] else None
        by_q = gradient * (-log_odds).sigmoid() if ctx.needs_input_grad[1] else None
        return by_p, by_q, None, None


def _excluded(log_p: Tensor, log_q: Tensor, exponent: float) -> Tensor:
    no_p, no_q = log_p == -torch.inf, log_q == -torch.inf
    return no_p & no_q if exponent > 0 else no_p | no_q


def _beside_the_larger(power_gap: Tensor, weight: float) -> Tensor:
    """ln(w p^e + (1 - w) q^e) less the logarithm of the larger power, from ln(p^e / q^e).

    That is ln(1 - v + v exp(x)), x <= 0 being minus the gap's size and v the weight of the
    smaller power. Near x = 0, where a division by a small e amplifies rounding, expm1 and log1p
    are exact; elsewhere the sum of two positive terms is.
    """
    x = -power_gap.abs()
    of_p, of_q = power_gap.new_full((), weight), power_gap.new_full((), 1 - weight)
    p_larger = power_gap > 0
    larger, smaller = torch.where(p_larger, of_p, of_q), torch.where(p_larger, of_q, of_p)
    near, far = (smaller * x.expm1()).log1p(), (larger + smaller * x.exp()).log()
    return torch.where(x < -1.0, far, near)
