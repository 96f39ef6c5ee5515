"""Alpha-beta divergences. Labels stand at the row that predicts them: no shift."""

import math
from dataclasses import replace

import torch
from torch import Tensor

from tests.golden.calls import IGNORED, Call, Defect, Hyper, Inputs, defect, restated, source
from tests.golden.kl import ABKD, AMID, scored


@source((ABKD, "ab_div"), (AMID, "ab_div"))
def mean_alpha_beta(inputs: Inputs, hyper: Hyper) -> Call:
    return inputs.call(
        "alpha_beta", shift=False, alpha=hyper.pop("alpha", 0.5), beta=hyper.pop("beta", 0.5)
    )


@source((ABKD, "alphanet"), (AMID, "alphanet"))
def larger_of_two(inputs: Inputs, hyper: Hyper) -> Call:
    """The larger of two alpha-divergences, each a mean over all tokens."""
    calls = [
        inputs.call("alpha_divergence", shift=False, alpha=hyper.pop(name))
        for name in ("alpha", "beta")
    ]
    return max(calls, key=lambda call: call.value().item())


CLIPPED = ((ABKD, "f_divergence"), (AMID, "f_divergence"))


@source(*CLIPPED)
def alpha_divergence_of_ratios(inputs: Inputs, hyper: Hyper) -> Call:
    """An alpha-divergence; near 0 and 1 it is a KL divergence.

    Their loss is a surrogate, minus the sum of w ln q, whose constant weights w give it the
    gradient of the divergence. Its value is another one, which the offset is for.
    """
    alpha, _ = order(hyper.pop("alpha")), hyper.pop("iw_clip", 1e3)
    call = inputs.call("alpha_divergence", shift=False, alpha=alpha)
    log_p, log_q = possible(inputs)
    offset = surrogate(log_p, log_q, alpha) - divergence(log_p, log_q, alpha)
    return replace(call, offset=offset)


def order(alpha: float) -> float:
    """Theirs within 0.001 of a limit is the limit."""
    return next((limit for limit in (0.0, 1.0) if abs(alpha - limit) < 1e-3), alpha)


def possible(inputs: Inputs) -> tuple[Tensor, Tensor]:
    """Log-probabilities of both sides at scored rows, without the columns that pad."""
    return scored(inputs.without(inputs.padding()).call("alpha_divergence", shift=False))


def divergence(log_p: Tensor, log_q: Tensor, alpha: float) -> Tensor:
    """The mean of D_alpha, as it is written."""
    if alpha in (0, 1):
        first, second = (log_p, log_q) if alpha else (log_q, log_p)
        return (first.exp() * (first - second)).sum(-1).mean()
    power = (alpha * log_p + (1 - alpha) * log_q).exp().sum(-1)
    return ((1 - power) / (alpha * (1 - alpha))).mean()


def surrogate(log_p: Tensor, log_q: Tensor, alpha: float, clip: float = math.inf) -> Tensor:
    """The mean of minus the sum of w ln q; v^alpha is clipped in w, v itself for alpha 0."""
    ratio, q = (log_p - log_q.detach()).exp(), log_q.detach().exp()
    if alpha == 0:
        weights = ratio.clamp(max=clip).log() - 1
    elif alpha == 1:
        weights = ratio
    else:
        weights = (ratio**alpha).clamp(max=clip) / alpha + 1 / (alpha * (alpha - 1))
    return -(q * weights * log_q).sum(-1).mean()


def is_clipped(inputs: Inputs, hyper: Hyper) -> bool:
    alpha, clip = order(hyper["alpha"]), hyper.get("iw_clip", 1e3)
    log_p, log_q = possible(inputs)
    ratio = (log_p - log_q).exp()
    return alpha != 1 and bool(((ratio**alpha if alpha else ratio) > clip).any())


def is_padded(inputs: Inputs, hyper: Hyper) -> bool:
    return bool(inputs.padding().any())


def has_the_gradient(inputs: Inputs, hyper: Hyper, value: Tensor, gradient: Tensor) -> bool:
    """The gradient of the divergence as it is written, 0 in columns that pad the vocabulary."""
    columns = inputs.padding()
    kept = inputs.without(columns)
    logits = kept["student_logits"].detach().double().requires_grad_()
    rows = kept.labels("student") != IGNORED
    log_p = kept["teacher_logits"][rows].double().log_softmax(-1)
    divergence(log_p, logits[rows].log_softmax(-1), order(hyper["alpha"])).backward()
    assert logits.grad is not None
    expected = torch.zeros_like(gradient, dtype=torch.float64)
    expected[..., ~columns] = logits.grad
    largest = expected.abs().max().item()
    return torch.allclose(gradient.double(), expected, rtol=1e-4, atol=1e-6 * (1 + largest))


@restated(*CLIPPED)
def clipped(inputs: Inputs, hyper: Hyper) -> Tensor | None:
    """What becomes of columns that pad is not known; only that they change something."""
    if is_padded(inputs, hyper):
        return None
    rows = inputs.labels("student") != IGNORED
    log_p, log_q = (
        inputs[f"{side}_logits"][rows].log_softmax(-1) for side in ("teacher", "student")
    )
    return surrogate(log_p, log_q, order(hyper["alpha"]), hyper.get("iw_clip", 1e3))


defect(
    *CLIPPED,
    entry=Defect(
        reason="with clipped ratios it is no divergence, and its gradient none of it",
        holds=has_the_gradient,
        applies=is_clipped,
    ),
)
defect(
    *CLIPPED,
    entry=Defect(
        reason="columns that pad the vocabulary (logit -inf) are given the logit 0",
        holds=has_the_gradient,
        applies=is_padded,
    ),
)


def is_continuous(inputs: Inputs, hyper: Hyper, value: Tensor, gradient: Tensor) -> bool:
    """Not negative, and the mean of the values at parameters a little to either side.

    There the definition divides by no 0, and float64 carries it.
    """
    log_p, log_q = (side.double() for side in possible(inputs))
    around = []
    for step in (1e-4, -1e-4):
        a, b = hyper.get("alpha", 0.5) + step, hyper.get("beta", 0.5) + 2 * step
        terms = (a * log_p + b * log_q).exp()
        terms = terms - (a * ((a + b) * log_p).exp() + b * ((a + b) * log_q).exp()) / (a + b)
        around.append(-terms.sum(-1).mean().item() / (a * b))
    expected = sum(around) / 2
    return value.item() >= 0 and math.isclose(value.item(), expected, rel_tol=1e-3)


def in_a_limit(inputs: Inputs, hyper: Hyper) -> bool:
    """One of a, b and a + b is 0, and the parameter that it divides by is not its own square."""
    a, b = hyper.get("alpha", 0.5), hyper.get("beta", 0.5)
    return a * b * (a + b) == 0 and (b if a == 0 else a) not in (0, 1)


@restated((ABKD, "ab_div"))
def divided_once(inputs: Inputs, hyper: Hyper) -> Tensor:
    a, b = hyper.get("alpha", 0.5), hyper.get("beta", 0.5)
    return (b if a == 0 else a) * mean_alpha_beta(inputs, dict(hyper)).value()


defect(
    (ABKD, "ab_div"),
    entry=Defect(
        reason="where a parameter or their sum is 0, it divides by the other, not by its square",
        holds=is_continuous,
        applies=in_a_limit,
    ),
)
