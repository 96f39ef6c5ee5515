"""f-divergences: each generator against its definition, and what all have in common."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from kd.errors import LossError
from kd.losses.alpha_beta import alpha_divergence
from kd.losses.f_divergence import f_divergence
from kd.losses.generators import GENERATORS
from kd.losses.jensen_shannon import jensen_shannon
from kd.losses.kl import forward_kl, reverse_kl, symmetric_kl
from kd.losses.total_variation import total_variation
from tests.losses.test_divergences import two_rows
from tests.losses.test_truncation import distributions, top_k

GENERATOR = st.sampled_from(sorted(GENERATORS))


@pytest.mark.parametrize("name", GENERATORS)
def test_it_is_the_sum_it_is_defined_as(name: str) -> None:
    p, q = torch.tensor([[[0.6, 0.3, 0.1]], [[0.2, 0.3, 0.5]]], dtype=torch.float64)
    expected = (q * GENERATORS[name].function(p / q)).sum(-1)
    torch.testing.assert_close(f_divergence(q.log(), p.log(), generator=name), expected)


def test_two_divergences_by_hand() -> None:
    p, q = torch.tensor([[[0.6, 0.4]], [[0.1, 0.9]]], dtype=torch.float64)
    chi2 = f_divergence(q.log(), p.log(), generator="chi2").item()
    assert chi2 == pytest.approx(0.25 / 0.1 + 0.25 / 0.9, rel=1e-13)
    hellinger = f_divergence(q.log(), p.log()).item()
    expected = (math.sqrt(0.6) - math.sqrt(0.1)) ** 2 + (math.sqrt(0.4) - math.sqrt(0.9)) ** 2
    assert hellinger == pytest.approx(expected, rel=1e-13)


@pytest.mark.parametrize("name", GENERATORS)
@given(ratio=st.floats(0.01, 100), step=st.floats(0.01, 1))
@settings(max_examples=50)
def test_generators_are_convex_and_0_at_1(name: str, ratio: float, step: float) -> None:
    f = GENERATORS[name].function
    points = torch.tensor([ratio, ratio + step / 2, ratio + step], dtype=torch.float64)
    low, middle, high = f(points)
    assert middle <= (low + high) / 2 + 1e-9 * (1 + abs(low) + abs(high))
    assert f(torch.ones(1)).item() == 0.0


@given(two_rows(), GENERATOR)
@settings(max_examples=50)
def test_the_gradient_in_ln_q_is_q_psi(pair: tuple[Tensor, Tensor], name: str) -> None:
    log_q, log_p = (side.clamp(min=-10.0).clamp(max=10.0) for side in pair)
    log_q = log_q.requires_grad_()
    generator = GENERATORS[name]
    generator.divergence(log_p, log_q).sum().backward()
    q, p = log_q.detach().exp(), log_p.exp()
    expected = (q * generator.psi(p / q)).masked_fill(p == q, 0.0)
    if name in ("total_variation", "hellinger", "chi2", "reverse_chi2", "kl", "reverse_kl"):
        assert log_q.grad is not None
        # KL divergences are taken without terms that add up to a constant: p = q has none.
        grad = log_q.grad.masked_fill(p == q, 0.0)
        torch.testing.assert_close(grad, expected, rtol=1e-6, atol=1e-9 * p.max().item())


@given(two_rows())
@settings(max_examples=50)
def test_generators_give_the_losses_that_have_their_own_names(pair: tuple[Tensor, Tensor]) -> None:
    def of(name: str) -> Tensor:
        return f_divergence(*pair, generator=name)

    close = {"rtol": 1e-9, "atol": 1e-12}
    torch.testing.assert_close(of("kl"), forward_kl(*pair))
    torch.testing.assert_close(of("reverse_kl"), reverse_kl(*pair))
    torch.testing.assert_close(of("jeffreys"), 2 * symmetric_kl(*pair))
    torch.testing.assert_close(of("jensen_shannon"), jensen_shannon(*pair))
    torch.testing.assert_close(of("total_variation"), total_variation(*pair))
    torch.testing.assert_close(of("hellinger"), alpha_divergence(*pair, alpha=0.5) / 2, **close)
    torch.testing.assert_close(of("chi2"), 2 * alpha_divergence(*pair, alpha=2.0), **close)
    reverse = 2 * alpha_divergence(*pair, alpha=-1.0)
    torch.testing.assert_close(of("reverse_chi2"), reverse, **close)


@given(distributions(), GENERATOR)
@settings(max_examples=50)
def test_truncation_never_raises_an_f_divergence(
    case: tuple[Tensor, Tensor, int], name: str
) -> None:
    student, teacher, k = case
    full = f_divergence(student.log(), teacher.log(), generator=name)
    truncated = f_divergence(student.log(), top_k(teacher, k), generator=name)
    assert (truncated <= full * (1 + 1e-9) + 1e-12).all()


def test_an_unknown_generator_is_refused_with_the_nearest() -> None:
    with pytest.raises(LossError, match="Did you mean 'hellinger'"):
        f_divergence(torch.zeros(1, 2), torch.zeros(1, 2), generator="helinger")
