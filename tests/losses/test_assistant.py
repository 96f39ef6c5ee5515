"""AMiD: special cases, ends, continuity in alpha, and the gradient through the assistant."""

import math
from collections.abc import Callable
from itertools import product
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from kd.errors import LossError
from kd.losses.assistant import ORDERS, alpha_mixture, amid
from kd.losses.kl import forward_kl
from kd.losses.skew import skew_kl, skew_reverse_kl
from tests.losses.test_divergences import two_rows

WEIGHT = st.floats(0.05, 0.95)
ALPHA = st.floats(-5, 5)
DIVERGENCES = ("kl", "jensen_shannon", "total_variation", "alpha_beta")


@st.composite
def mild_rows(draw: st.DrawFn) -> tuple[Tensor, Tensor]:
    """Student and teacher logits [1, V] between -4 and 4, everything possible."""
    width = draw(st.integers(2, 8))
    logit = st.floats(-4, 4, allow_subnormal=False)
    values = [draw(st.lists(logit, min_size=width, max_size=width)) for _ in range(2)]
    student, teacher = torch.tensor(values, dtype=torch.float64)
    return student[None], teacher[None]


def value_and_gradient(
    student: Tensor, teacher: Tensor, loss: Callable[..., Tensor] = amid, **options: Any
) -> tuple[Tensor, Tensor]:
    logits = student.clone().requires_grad_()
    value = loss(logits, teacher, **options)
    value.sum().backward()
    assert logits.grad is not None
    return value.detach(), logits.grad


def test_the_value_by_hand() -> None:
    """alpha 0: squared mean of roots. Roots 0.8, 0.6 and 0.6, 0.8 in the middle: a fair coin."""
    student = torch.tensor([[0.36, 0.64]], dtype=torch.float64).log()
    teacher = torch.tensor([[0.64, 0.36]], dtype=torch.float64).log()
    expected = 0.64 * math.log(1.28) + 0.36 * math.log(0.72)
    assert amid(student, teacher, alpha=0.0).item() == pytest.approx(expected, rel=1e-12)


# --- the assistant --------------------------------------------------------------------------------


@pytest.mark.parametrize("alpha", [-3.0, -1.0, 0.0, 0.5, 3.0, 5.0])
@given(mild_rows(), WEIGHT)
@settings(max_examples=20)
def test_the_assistant_is_the_normalised_power_mean(
    alpha: float, pair: tuple[Tensor, Tensor], weight: float
) -> None:
    q, p = (side.softmax(-1) for side in pair)
    e = (1 - alpha) / 2
    mean = (weight * p**e + (1 - weight) * q**e) ** (1 / e)
    found = alpha_mixture(p.log(), q.log(), alpha, weight).exp()
    torch.testing.assert_close(found, mean / mean.sum(-1, keepdim=True), rtol=1e-9, atol=1e-12)


@given(mild_rows(), WEIGHT)
@settings(max_examples=50)
def test_alpha_1_is_the_softmax_of_mixed_logits(pair: tuple[Tensor, Tensor], weight: float) -> None:
    student, teacher = pair
    expected = (weight * teacher + (1 - weight) * student).softmax(-1)
    found = alpha_mixture(teacher.log_softmax(-1), student.log_softmax(-1), 1.0, weight).exp()
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("divergence", DIVERGENCES)
@pytest.mark.parametrize("distance", [1e-15, 1e-10, 1e-7, -1e-15, -1e-10, -1e-7])
@given(mild_rows(), WEIGHT)
@settings(max_examples=10)
def test_value_and_gradient_are_continuous_at_alpha_1(
    divergence: str, distance: float, pair: tuple[Tensor, Tensor], weight: float
) -> None:
    options = {"teacher_weight": weight, "divergence": divergence}
    at = value_and_gradient(*pair, alpha=1.0, **options)
    beside = value_and_gradient(*pair, alpha=1.0 + distance, **options)
    tolerance = 1e-9 + 100 * abs(distance)
    torch.testing.assert_close(beside, at, rtol=0, atol=tolerance)


# --- special cases --------------------------------------------------------------------------------


@given(two_rows(), WEIGHT)
@settings(max_examples=50)
def test_the_arithmetic_assistant_is_that_of_the_skew_divergences(
    pair: tuple[Tensor, Tensor], weight: float
) -> None:
    student, teacher = pair
    assistant = {"alpha": -1.0, "teacher_weight": weight}
    for order, loss, skew in [
        ("pr", skew_kl, weight),
        ("qr", skew_reverse_kl, 1 - weight),
    ]:
        found = value_and_gradient(student, teacher, order=order, **assistant)
        expected = value_and_gradient(student, teacher, loss, skew=skew)
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("alpha", [-3.0, -1.0, 0.5, 1.0, 3.0])
@given(two_rows())
@settings(max_examples=20)
def test_the_assistant_goes_from_the_student_to_the_teacher(
    alpha: float, pair: tuple[Tensor, Tensor]
) -> None:
    """Exactly, whatever one side excludes."""
    student, teacher = pair
    forward, reverse = forward_kl(student, teacher), forward_kl(teacher, student)
    for weight, order, expected in [
        (0.0, "pr", forward),
        (0.0, "rp", reverse),
        (0.0, "qr", torch.zeros(1)),
        (0.0, "rq", torch.zeros(1)),
        (1.0, "pr", torch.zeros(1)),
        (1.0, "rp", torch.zeros(1)),
        (1.0, "qr", reverse),
        (1.0, "rq", forward),
    ]:
        options = {"alpha": alpha, "teacher_weight": weight, "order": order}
        value = amid(student, teacher, **options)
        torch.testing.assert_close(value, expected.double(), rtol=1e-9, atol=1e-12)
        if value.isfinite():
            assert value_and_gradient(student, teacher, **options)[1].isfinite().all()


@given(mild_rows(), ALPHA, WEIGHT)
@settings(max_examples=30)
def test_other_divergences_are_those_of_their_names(
    pair: tuple[Tensor, Tensor], alpha: float, weight: float
) -> None:
    student, teacher = pair
    q, p = (side.softmax(-1) for side in pair)
    r = alpha_mixture(p.log(), q.log(), alpha, weight).exp()
    options = {"alpha": alpha, "teacher_weight": weight}
    sides = {"p": p, "q": q, "r": r}
    for order in ORDERS:
        x, y = (sides[side] for side in order)
        m = (x + y) / 2
        js = ((x * (x / m).log()).sum(-1) + (y * (y / m).log()).sum(-1)) / 2
        found = amid(student, teacher, divergence="jensen_shannon", order=order, **options)
        torch.testing.assert_close(found, js, rtol=1e-9, atol=1e-12)
        found = amid(student, teacher, divergence="total_variation", order=order, **options)
        torch.testing.assert_close(found, (x - y).abs().sum(-1) / 2, rtol=1e-9, atol=1e-12)
        a, b = 0.3, 0.6
        terms = x**a * y**b - (a * x ** (a + b) + b * y ** (a + b)) / (a + b)
        found = amid(
            student,
            teacher,
            divergence="alpha_beta",
            order=order,
            ab_alpha=a,
            ab_beta=b,
            **options,
        )
        torch.testing.assert_close(found, -terms.sum(-1) / (a * b), rtol=1e-9, atol=1e-11)


# --- the gradient ---------------------------------------------------------------------------------

# f, psi(v) = f(v) - v f'(v), and the options under which `amid` is D_f(p || r) = sum r f(p / r),
# times a factor.
F_DIVERGENCES: dict[str, tuple[Callable[[Tensor], Tensor], dict[str, Any], float]] = {
    "kl": (lambda v: -v, {"order": "pr"}, 1.0),  # v ln v
    "reverse_kl": (lambda v: 1 - v.log(), {"order": "rp"}, 1.0),  # -ln v
    "chi_squared": (  # (v - 1)^2
        lambda v: 1 - v**2,
        {"divergence": "alpha_beta", "ab_alpha": 2.0, "ab_beta": -1.0},
        2.0,
    ),
    "hellinger": (  # (sqrt v - 1)^2
        lambda v: 1 - v.sqrt(),
        {"divergence": "alpha_beta", "ab_alpha": 0.5, "ab_beta": 0.5},
        0.5,
    ),
}


@pytest.mark.parametrize("name", F_DIVERGENCES)
@given(mild_rows(), ALPHA, WEIGHT)
@settings(max_examples=30)
def test_the_gradient_is_that_of_the_papers_equation_11(
    name: str, pair: tuple[Tensor, Tensor], alpha: float, weight: float
) -> None:
    """E_r[w (psi(p / r) - E_r psi(p / r)) grad ln q], w the student's share of the mean."""
    psi, options, factor = F_DIVERGENCES[name]
    _, gradient = value_and_gradient(*pair, alpha=alpha, teacher_weight=weight, **options)
    q, p = (side.softmax(-1) for side in pair)
    r = alpha_mixture(p.log(), q.log(), alpha, weight).exp()
    e = (1 - alpha) / 2
    share = (1 - weight) * q**e / (weight * p**e + (1 - weight) * q**e)
    centred = psi(p / r) - (r * psi(p / r)).sum(-1, keepdim=True)
    per_token = r * share * centred  # of grad ln q_v, which is 1[v = u] - q_u in logit u
    expected = per_token - q * per_token.sum(-1, keepdim=True)
    scale = max(1.0, expected.abs().max().item())
    torch.testing.assert_close(factor * gradient, expected, rtol=1e-7, atol=1e-9 * scale)


# --- all ------------------------------------------------------------------------------------------


@given(two_rows(), ALPHA, WEIGHT, st.sampled_from(DIVERGENCES), st.sampled_from(ORDERS))
@settings(max_examples=60)
def test_identical_models_give_zero_with_a_zero_gradient(
    pair: tuple[Tensor, Tensor], alpha: float, weight: float, divergence: str, order: str
) -> None:
    options = {"alpha": alpha, "teacher_weight": weight, "divergence": divergence, "order": order}
    value, gradient = value_and_gradient(pair[0], pair[0], **options)
    assert value.item() == pytest.approx(0.0, abs=1e-9)
    torch.testing.assert_close(gradient, torch.zeros_like(gradient), rtol=0, atol=1e-9)


@given(mild_rows(), ALPHA, WEIGHT, st.sampled_from(DIVERGENCES), st.sampled_from(ORDERS))
@settings(max_examples=60)
def test_it_is_never_negative(
    pair: tuple[Tensor, Tensor], alpha: float, weight: float, divergence: str, order: str
) -> None:
    options = {"alpha": alpha, "teacher_weight": weight, "divergence": divergence, "order": order}
    assert amid(*pair, **options).item() >= -1e-9


@pytest.mark.parametrize("alpha", [-3.0, -1.0, 0.0, 0.5, 1.0, 3.0])
@pytest.mark.parametrize(("divergence", "order"), product(DIVERGENCES, ORDERS))
def test_columns_that_both_exclude_change_nothing(
    alpha: float, divergence: str, order: str
) -> None:
    torch.manual_seed(0)
    student, teacher = torch.randn(2, 3, 5, dtype=torch.float64)
    options = {"alpha": alpha, "divergence": divergence, "order": order}
    value, gradient = value_and_gradient(student, teacher, **options)
    pad = [torch.nn.functional.pad(side, (0, 2), value=-math.inf) for side in (student, teacher)]
    padded, padded_gradient = value_and_gradient(*pad, **options)
    torch.testing.assert_close(padded, value)
    torch.testing.assert_close(padded_gradient, torch.nn.functional.pad(gradient, (0, 2)))


@given(two_rows(), st.floats(-5, 0.9), WEIGHT, st.sampled_from(["pr", "qr"]))
@settings(max_examples=50)
def test_below_alpha_1_both_sides_have_a_finite_divergence_to_the_assistant(
    pair: tuple[Tensor, Tensor], alpha: float, weight: float, order: str
) -> None:
    """Whatever one side excludes: the assistant allows what either does."""
    options = {"alpha": alpha, "teacher_weight": weight, "order": order}
    value, gradient = value_and_gradient(*pair, **options)
    assert value.isfinite().all() and gradient.isfinite().all()


def test_what_is_not_defined_is_refused() -> None:
    rows = torch.zeros(1, 3), torch.zeros(1, 3)
    with pytest.raises(LossError, match="teacher_weight"):
        amid(*rows, teacher_weight=1.1)
    with pytest.raises(LossError, match="order 'pq'"):
        amid(*rows, order="pq")
    with pytest.raises(LossError, match=r"divergence 'k1'.*'kl'"):
        amid(*rows, divergence="k1")
