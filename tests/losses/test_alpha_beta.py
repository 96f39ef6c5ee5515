"""Alpha-beta divergences: special cases, limits, dualities, and digits near the limits."""

import math
from decimal import Decimal, localcontext

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from kd.losses.alpha_beta import alpha_beta, alpha_beta_divergence, alpha_divergence
from kd.losses.kl import forward_kl, reverse_kl
from tests.losses.test_divergences import two_rows
from tests.losses.test_truncation import distributions, top_k

# Numbers whose square is none any more are left out.
EXPONENT = st.one_of(
    st.sampled_from([0.0, 0.5, 1.0, 1e-9, -1e-9]),
    st.floats(-1.5, 2.5).filter(lambda exponent: abs(exponent) > 1e-30),
)

# Where one exponent or their sum is 0, nearly 0, or neither.
NEAR_LIMITS = [
    (0.001, 0.7),
    (0.7, 0.001),
    (0.25, -0.2499),
    (1e-9, 0.7),
    (0.7, -1e-9),
    (1e-9, 1e-9),
    (1e-5, -3e-5),
    (-1e-12, 1.0),
    (1.0, 1e-13),
    (0.2, 0.7),
    (2.0, -1.0),
    (0.5, -0.4),
    (1.0, 1.0),
]


def two_sides(rows: int = 6, width: int = 8, spread: float = 2.0) -> tuple[Tensor, Tensor]:
    torch.manual_seed(0)
    log_p, log_q = (spread * torch.randn(2, rows, width, dtype=torch.float64)).log_softmax(-1)
    return log_p, log_q


def divergence(log_p: Tensor, log_q: Tensor, alpha: float, beta: float) -> Tensor:
    """D_{alpha,beta}(p, q) by the loss that experiments use."""
    return alpha_beta(log_q, log_p, alpha=alpha, beta=beta)


def exact(log_p: Tensor, log_q: Tensor, alpha: float, beta: float) -> list[float]:
    """The definition, as it is written, with 60 digits."""
    rows = []
    with localcontext() as context:
        context.prec = 60
        a, b = Decimal(alpha), Decimal(beta)
        for p_row, q_row in zip(log_p.tolist(), log_q.tolist(), strict=True):
            total = Decimal(0)
            for x, y in zip(map(Decimal, p_row), map(Decimal, q_row), strict=True):
                means = (a * ((a + b) * x).exp() + b * ((a + b) * y).exp()) / (a + b)
                total += (means - (a * x + b * y).exp()) / (a * b)
            rows.append(float(total))
    return rows


@pytest.mark.parametrize(("alpha", "beta"), NEAR_LIMITS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_no_digits_are_lost_near_a_limit(alpha: float, beta: float, dtype: torch.dtype) -> None:
    log_p, log_q = (side.to(dtype) for side in two_sides())
    value = alpha_beta_divergence(log_p, log_q, alpha, beta)
    expected = torch.tensor(exact(log_p, log_q, alpha, beta), dtype=torch.float64)
    precision = 16 * torch.finfo(dtype).eps
    torch.testing.assert_close(value.double(), expected, rtol=precision, atol=0)


@pytest.mark.parametrize(("alpha", "beta"), NEAR_LIMITS)
def test_gradients_lose_no_digits_near_a_limit(alpha: float, beta: float) -> None:
    """In float32 as in float64, and there as finite differences have them."""
    sides = two_sides()
    assert torch.autograd.gradcheck(
        lambda x, y: divergence(x.log_softmax(-1), y.log_softmax(-1), alpha, beta) / 100,
        tuple(side.clone().requires_grad_() for side in sides),
    )
    gradients = []
    for dtype in (torch.float32, torch.float64):
        rounded = [side.float().to(dtype).requires_grad_() for side in sides]
        alpha_beta_divergence(rounded[0], rounded[1], alpha, beta).sum().backward()
        gradients.append([side.grad.double() for side in rounded if side.grad is not None])
    for single, double in zip(*gradients, strict=True):
        torch.testing.assert_close(single, double, rtol=2e-6, atol=1e-7)


@given(two_rows(), EXPONENT)
@settings(max_examples=50)
def test_limits_are_those_of_the_literature(pair: tuple[Tensor, Tensor], a: float) -> None:
    """b = 0, a = 0, a + b = 0 and a = b = 0, written out."""
    a = a if abs(a) > 0.05 else 0.3  # else the formulas below lose their digits
    lp, lq = (side.clamp(min=-20.0).log_softmax(-1) for side in pair)
    d = lp - lq
    close = {"rtol": 1e-7, "atol": 1e-9}
    last = ((a * lp).exp() * (a * d - 1) + (a * lq).exp()).sum(-1) / a**2
    first = ((a * lq).exp() * (-a * d - 1) + (a * lp).exp()).sum(-1) / a**2
    sum_is_0 = ((a * d).exp() - a * d - 1).sum(-1) / a**2
    torch.testing.assert_close(divergence(lp, lq, a, 0.0), last, **close)
    torch.testing.assert_close(divergence(lp, lq, 0.0, a), first, **close)
    torch.testing.assert_close(divergence(lp, lq, a, -a), sum_is_0, **close)
    torch.testing.assert_close(divergence(lp, lq, 0.0, 0.0), d.square().sum(-1) / 2, **close)


@pytest.mark.parametrize(("a", "b"), [(0.0, 0.6), (0.6, 0.0), (0.3, -0.3), (0.0, 0.0), (1.0, 0.0)])
def test_it_is_continuous_where_the_formula_divides_by_0(a: float, b: float) -> None:
    log_p, log_q = two_sides()
    at = divergence(log_p, log_q, a, b)
    for step in (1e-6, 1e-9, 1e-12, 1e-15):
        beside = divergence(log_p, log_q, a + step, b - 2 * step)
        torch.testing.assert_close(beside, at, rtol=100 * step + 1e-14, atol=0)


@given(two_rows(), EXPONENT, EXPONENT)
@settings(max_examples=50)
def test_it_is_not_negative_and_exponents_swap_with_the_sides(
    pair: tuple[Tensor, Tensor], a: float, b: float
) -> None:
    value = divergence(*pair, a, b)
    assert (value >= 0).all()
    torch.testing.assert_close(divergence(pair[1], pair[0], b, a), value, rtol=1e-9, atol=1e-12)


@given(two_rows())
@settings(max_examples=50)
def test_special_cases(pair: tuple[Tensor, Tensor]) -> None:
    student, teacher = pair
    p, q = teacher.softmax(-1), student.softmax(-1)
    close = {"rtol": 1e-9, "atol": 1e-12}

    def at(alpha: float, beta: float) -> Tensor:
        return alpha_beta(student, teacher, alpha=alpha, beta=beta)

    torch.testing.assert_close(at(1.0, 0.0), forward_kl(student, teacher), **close)
    torch.testing.assert_close(at(0.0, 1.0), reverse_kl(student, teacher), **close)
    torch.testing.assert_close(at(0.5, 0.5), 2 * (p.sqrt() - q.sqrt()).square().sum(-1), **close)
    torch.testing.assert_close(at(1.0, 1.0), (p - q).square().sum(-1) / 2, **close)
    torch.testing.assert_close(at(0.3, 0.7), alpha_divergence(student, teacher, alpha=0.3))


@given(two_rows(), st.floats(0.05, 0.95))
@settings(max_examples=50)
def test_the_alpha_divergence_subtracts_1_from_the_sum_and_not_from_each_term(
    pair: tuple[Tensor, Tensor], alpha: float
) -> None:
    student, teacher = pair
    p, q = teacher.softmax(-1), student.softmax(-1)
    expected = (1 - (p**alpha * q ** (1 - alpha)).sum(-1)) / (alpha * (1 - alpha))
    value = alpha_divergence(student, teacher, alpha=alpha)
    torch.testing.assert_close(value, expected, rtol=1e-9, atol=1e-12)
    assert value.item() <= 1 / (alpha * (1 - alpha)) + 1e-12


@pytest.mark.parametrize(
    ("alpha", "beta", "of_excluded_by_teacher", "of_excluded_by_student"),
    [
        (0.5, 0.5, 0.25 / 0.5, 0.25 / 0.5),  # q^s / (a s) and p^s / (b s)
        (0.2, 0.7, 0.25**0.9 / 0.18, 0.25**0.9 / 0.63),
        (1.0, 0.0, 0.25, math.inf),
        (0.0, 1.0, math.inf, 0.25),
        (2.0, -1.0, 0.25 / 2, math.inf),
        (0.5, -0.5, math.inf, math.inf),
        (0.0, 0.0, math.inf, math.inf),
        (-1.0, -1.0, math.inf, math.inf),
    ],
)
def test_excluded_tokens_by_hand(
    alpha: float, beta: float, of_excluded_by_teacher: float, of_excluded_by_student: float
) -> None:
    """One side gives 0 and the other 1/4; where both give 0, or the same, nothing counts."""
    none, some = -math.inf, math.log(0.25)
    for log_p, log_q, expected in [
        ([none, none, some], [some, none, some], of_excluded_by_teacher),
        ([some, none, some], [none, none, some], of_excluded_by_student),
    ]:
        sides = (torch.tensor([side], dtype=torch.float64) for side in (log_p, log_q))
        value = alpha_beta_divergence(*sides, alpha, beta).item()
        assert value == pytest.approx(expected, rel=1e-12)


@given(two_rows(), EXPONENT, EXPONENT)
@settings(max_examples=50)
def test_a_finite_value_has_a_finite_gradient(
    pair: tuple[Tensor, Tensor], a: float, b: float
) -> None:
    student = pair[0].clone().requires_grad_()
    value = alpha_beta(student, pair[1], alpha=a, beta=b)
    if value.isfinite().all():
        value.sum().backward()
        assert student.grad is not None and student.grad.isfinite().all()


@given(distributions(), st.sampled_from([-1.0, 0.0, 0.3, 0.5, 1.0, 2.0]))
@settings(max_examples=50)
def test_truncation_never_raises_an_alpha_divergence(
    case: tuple[Tensor, Tensor, int], alpha: float
) -> None:
    student, teacher, k = case
    full = alpha_divergence(student.log(), teacher.log(), alpha=alpha)
    truncated = alpha_divergence(student.log(), top_k(teacher, k), alpha=alpha)
    assert (truncated <= full * (1 + 1e-9) + 1e-12).all()


def test_truncation_may_raise_or_lower_another_alpha_beta_divergence() -> None:
    teacher = torch.tensor([[0.4, 0.3, 0.3]], dtype=torch.float64)
    student = torch.tensor([[0.8, 0.1, 0.1]], dtype=torch.float64)
    for beta, raises in ((1.0, True), (-0.5, False)):
        full = alpha_beta(student.log(), teacher.log(), alpha=1.0, beta=beta)
        truncated = alpha_beta(student.log(), top_k(teacher, 1), alpha=1.0, beta=beta)
        assert (truncated > full).item() == raises
