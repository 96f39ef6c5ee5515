"""Generators of f-divergences: convex functions f with f(1) = 0."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from kd.losses.jensen_shannon import against_mixture
from kd.losses.kl import both_kl
from kd.losses.probabilities import log_ratio


@dataclass(frozen=True)
class Generator:
    """A generator f, and the divergence D_f(p || q) = sum of q f(p / q) that it generates.

    The divergence is computed from logarithms, since p / q overflows and 0 f(p / 0) is the
    limit p f'(infinity).
    """

    function: Callable[[Tensor], Tensor]  # f(v) for v > 0
    divergence: Callable[[Tensor, Tensor], Tensor]  # of log p and log q, [N, M] each; gives [N]

    def psi(self, ratios: Tensor) -> Tensor:
        """f(v) - v f'(v) of ratios v = p / q; times q it is the derivative of D_f in ln q."""
        ratios = ratios.detach().requires_grad_()
        values = self.function(ratios)
        (slopes,) = torch.autograd.grad(values.sum(), ratios)
        return (values - ratios * slopes).detach()


def _forward_kl(log_p: Tensor, log_q: Tensor) -> Tensor:
    return both_kl(log_q, log_p)[0]


def _reverse_kl(log_p: Tensor, log_q: Tensor) -> Tensor:
    return both_kl(log_q, log_p)[1]


def _jeffreys(log_p: Tensor, log_q: Tensor) -> Tensor:
    forward, reverse = both_kl(log_q, log_p)
    return forward + reverse


def _chi_square(log_p: Tensor, log_q: Tensor) -> Tensor:
    """Sum of (p - q)^2 / q, as squares of p / sqrt(q) - sqrt(q)."""
    ratio, root = log_ratio(log_p, log_q), log_q / 2
    scaled = torch.where(ratio == torch.inf, torch.inf, root + ratio)
    return (scaled.exp() - root.exp()).square().sum(dim=-1)


def _reverse_chi_square(log_p: Tensor, log_q: Tensor) -> Tensor:
    return _chi_square(log_q, log_p)


def _hellinger(log_p: Tensor, log_q: Tensor) -> Tensor:
    return ((log_p / 2).exp() - (log_q / 2).exp()).square().sum(dim=-1)


def _jensen_shannon(log_p: Tensor, log_q: Tensor) -> Tensor:
    of_p, of_q = against_mixture(log_p, log_q, 0.5)
    return (of_p + of_q) / 2


def _total_variation(log_p: Tensor, log_q: Tensor) -> Tensor:
    return (log_p.exp() - log_q.exp()).abs().sum(dim=-1) / 2


GENERATORS: dict[str, Generator] = {
    "kl": Generator(lambda v: v * v.log(), _forward_kl),
    "reverse_kl": Generator(lambda v: -v.log(), _reverse_kl),
    "jeffreys": Generator(lambda v: (v - 1) * v.log(), _jeffreys),
    "chi2": Generator(lambda v: (v - 1) ** 2, _chi_square),
    "reverse_chi2": Generator(lambda v: (v - 1) ** 2 / v, _reverse_chi_square),
    "hellinger": Generator(lambda v: (v.sqrt() - 1) ** 2, _hellinger),
    "jensen_shannon": Generator(
        lambda v: (v * v.log() - (v + 1) * ((v + 1) / 2).log()) / 2, _jensen_shannon
    ),
    "total_variation": Generator(lambda v: (v - 1).abs() / 2, _total_variation),
}
