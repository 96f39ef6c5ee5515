"""Alpha-beta divergences, and among them the alpha-divergences."""

from math import factorial
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from kd.losses.declaration import loss
from kd.losses.probabilities import common_log_probs
from kd.losses.teacher import Teacher


@loss(
    "alpha_beta",
    family="alpha-beta",
    same_vocabulary=True,
    truncation="unbounded",
    formula=(
        r"-\frac{1}{\alpha\beta} \sum_v \left(p_v^\alpha q_v^\beta"
        r" - \frac{\alpha}{\alpha + \beta} p_v^{\alpha + \beta}"
        r" - \frac{\beta}{\alpha + \beta} q_v^{\alpha + \beta}\right)"
    ),
    source="Cichocki et al., Entropy 13(1), 2011; for distillation Wang et al., arXiv 2505.04560",
    aliases=("ab_div", "abkd"),
    kernel="kd.losses.kernels.alpha_beta",
)
def alpha_beta(
    student: Tensor, teacher: Teacher, *, alpha: float = 0.2, beta: float = 0.7
) -> Tensor:
    """Alpha-beta divergence D(p, q) of teacher p and student q, for all real alpha and beta.

    Never negative, and 0 for identical models only. D_{a,b}(p, q) = D_{b,a}(q, p). It is
    continuous in a and b; where the formula divides by 0, the value is its limit:

        b = 0:      1/a^2 sum p^a ln(p^a / q^a) - p^a + q^a
        a = 0:      1/b^2 sum q^b ln(q^b / p^b) - q^b + p^b
        a + b = 0:  1/a^2 sum ln(q^a / p^a) + (p / q)^a - 1
        a = b = 0:  1/2 sum (ln p - ln q)^2

    Special cases: (1, 0) is `forward_kl`, (0, 1) `reverse_kl`, (a, 1 - a) `alpha_divergence`,
    (1/2, 1/2) is 2 sum (sqrt p - sqrt q)^2, and (1, 1) is 1/2 sum (p - q)^2.

    An exponent of 0 or less (a, b or a + b) makes tokens dominate to which one side gives next
    to nothing: values of 1e4 and more, and an infinite one where a single side excludes a
    token. A token that both sides exclude counts 0, as every token does on which they agree.

    Top-k teacher: the tokens beyond the top k are one outcome. Only for a + b = 1 is that a
    lower bound (see `alpha_divergence`). Otherwise the divergence is not homogeneous in
    (p, q), merging outcomes can raise it as well as lower it, and the error is not known.

    Args:
        student: logits [N, V].
        teacher: logits [N, V], or top-k.
        alpha: exponent of the teacher's probability.
        beta: exponent of the student's.
    """
    log_q, log_p = common_log_probs(student, teacher)
    return alpha_beta_divergence(log_p, log_q, alpha, beta)


@loss(
    "alpha_divergence",
    family="alpha-beta",
    same_vocabulary=True,
    truncation="lower_bound",
    formula=(r"\frac{1}{\alpha(1 - \alpha)} \left(1 - \sum_v p_v^\alpha q_v^{1 - \alpha}\right)"),
    source="Amari, Differential-Geometrical Methods in Statistics, 1985",
    kernel="kd.losses.kernels.alpha_beta",
)
def alpha_divergence(student: Tensor, teacher: Teacher, *, alpha: float = 0.5) -> Tensor:
    """Alpha-divergence of teacher p and student q, for every real alpha.

    Never negative, and 0 for identical models only. Continuous in alpha: 1 is `forward_kl`, 0
    is `reverse_kl`; 1/2 is 2 sum (sqrt p - sqrt q)^2, four times the squared Hellinger
    distance, and 2 half the chi-square divergence. Finite for 0 < alpha < 1. For alpha >= 1
    it is infinite where the student excludes what the teacher allows, for alpha <= 0 where
    the teacher excludes what the student allows.

    Top-k teacher: the tokens beyond the top k are one outcome. It is the f-divergence of
    f(v) = (v^alpha - 1) / (alpha (alpha - 1)), so merging outcomes never increases it: the
    full value is at least this one, by an amount that is not bounded.
    """
    log_q, log_p = common_log_probs(student, teacher)
    return alpha_beta_divergence(log_p, log_q, alpha, 1 - alpha)


def alpha_beta_divergence(log_p: Tensor, log_q: Tensor, alpha: float, beta: float) -> Tensor:
    """D_{alpha,beta}(p, q) of log-probabilities [N, M], as [N]; differentiable in both."""
    values: Tensor = _AlphaBeta.apply(log_p, log_q, alpha, beta)  # type: ignore[no-untyped-call]
    return values


class _AlphaBeta(torch.autograd.Function):
    r"""The divergence by a formula that needs no limits, and its gradient by another.

    With d = ln p - ln q, the term of one outcome is

        d^2 exp[(a + b) ln p, a ln p + b ln q, (a + b) ln q],

    exp[x, y, z] being the second divided difference of the exponential function: positive,
    symmetric and smooth, also where points coincide. Written out for three different points
    this is the usual formula, which divides differences of nearly equal numbers by nearly 0
    when a, b or a + b are small, and loses all digits there.
    """

    @staticmethod
    def forward(ctx: Any, log_p: Tensor, log_q: Tensor, alpha: float, beta: float) -> Tensor:
        impossible = (log_p == -torch.inf) & (log_q == -torch.inf)
        log_p, log_q = log_p.masked_fill(impossible, 0.0), log_q.masked_fill(impossible, 0.0)
        ctx.save_for_backward(log_p, log_q)
        ctx.exponents = alpha, beta
        return _terms(log_p, log_q, alpha, beta).sum(dim=-1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        log_p, log_q = ctx.saved_tensors
        alpha, beta = ctx.exponents
        gradient = gradient[:, None]
        by_p = by_q = None
        if ctx.needs_input_grad[0]:
            by_p = gradient * _slopes(log_q, log_p, beta, alpha)  # D_{a,b}(p, q) = D_{b,a}(q, p)
        if ctx.needs_input_grad[1]:
            by_q = gradient * _slopes(log_p, log_q, alpha, beta)
        return by_p, by_q, None, None


def _slopes(log_p: Tensor, log_q: Tensor, alpha: float, beta: float) -> Tensor:
    """Derivative of each outcome's term in ln q: (q^(a + b) - p^a q^b) / a, also for a = 0."""
    ratio = log_p - log_q
    top = torch.maximum(
        _times(alpha, log_p) + _times(beta, log_q), _times(alpha + beta, log_q)
    ).exp()
    slopes = -ratio.sign() * top * _fall(ratio.abs(), abs(alpha))
    return slopes.masked_fill(top == 0, 0.0)  # what is infinite beside it vanishes slower


def _terms(log_p: Tensor, log_q: Tensor, alpha: float, beta: float) -> Tensor:
    """d^2 exp[x, y, z] for each outcome; its points are (a + b) ln q plus 0, a d and (a + b) d."""
    ratio = log_p - log_q
    if alpha == beta == 0:
        return ratio.square() / 2
    size, ahead = ratio.abs(), ratio > 0
    top = torch.maximum(
        torch.maximum(_times(alpha + beta, log_p), _times(alpha + beta, log_q)),
        _times(alpha, log_p) + _times(beta, log_q),
    ).exp()
    # d > 0 has its largest point at the upper end, d < 0 at the lower one.
    below, above = _gaps(alpha, beta)
    far = torch.where(ahead, _difference(size, above, below), _difference(size, below, above))
    span, first = size * (below + above), torch.where(ahead, size * above, size * below)
    near = ratio.square() * _series(-span, -first)
    # Beyond 1 the difference of two means loses no digits; within, the series converges fast.
    return (top * torch.where(span < 1, near, far)).masked_fill(top == 0, 0.0)


def _gaps(alpha: float, beta: float) -> tuple[float, float]:
    """Gaps below and above the middle one of the numbers 0, alpha and alpha + beta.

    That between the last two is beta itself: a difference would round a small one away.
    """
    total = alpha + beta
    if alpha * total <= 0:
        return abs(min(alpha, total)), abs(max(alpha, total))
    from_0, between = min(abs(alpha), abs(total)), abs(beta)
    return (from_0, between) if total > 0 else (between, from_0)


def _difference(size: Tensor, first: float, second: float) -> Tensor:
    """t^2 exp[0, -r t, -(r + s) t] for sizes t and gaps r and s, not both 0."""
    if first == 0:
        return (size - _fall(size, second)) / second
    decay = (-first * size).exp()
    rest = (decay * _fall(size, second)).masked_fill(decay == 0, 0.0)
    return (_fall(size, first) - rest) / (first + second)


def _fall(size: Tensor, rate: float) -> Tensor:
    """(1 - exp(-r t)) / r for the rate r >= 0 and sizes t; t itself for r = 0."""
    return size if rate == 0 else -(-rate * size).expm1() / rate


def _series(x: Tensor, y: Tensor) -> Tensor:
    """exp[x, y, 0] for -1 < x <= y <= 0: the sum of h_n(x, y) / (n + 2)! over n.

    h_n is the complete homogeneous symmetric polynomial, of n + 1 terms not above 1.
    """
    precision = torch.finfo(x.dtype).eps / 8
    power = polynomial = torch.ones_like(x)
    total, n = polynomial / 2, 1
    while (n + 1) / factorial(n + 2) > precision:
        power = power * y
        polynomial = x * polynomial + power
        total = total + polynomial / factorial(n + 2)
        n += 1
    return total


def _times(exponent: float, log_probs: Tensor) -> Tensor:
    """ln(p^e), where 0^0 is 1."""
    return torch.zeros_like(log_probs) if exponent == 0 else exponent * log_probs
