"""Alpha-beta divergences. Labels stand at the row that predicts them: no shift."""

import math
from dataclasses import replace

from torch import Tensor

from tests.golden.calls import Call, Defect, Hyper, Inputs, Unsupported, defect, source
from tests.golden.kl import ABKD, AMID, scored


@source((ABKD, "ab_div"), (AMID, "ab_div"))
def mean_alpha_beta(inputs: Inputs, hyper: Hyper) -> Call:
    return inputs.call("alpha_beta", shift=False, alpha=hyper.pop("alpha"), beta=hyper.pop("beta"))


@source((ABKD, "alphanet"), (AMID, "alphanet"))
def larger_of_two(inputs: Inputs, hyper: Hyper) -> Call:
    """The larger of two alpha-divergences, each a mean over all tokens."""
    calls = [
        inputs.call("alpha_divergence", shift=False, alpha=hyper.pop(name))
        for name in ("alpha", "beta")
    ]
    return max(calls, key=lambda call: call.value().item())


@source((ABKD, "f_divergence"), (AMID, "f_divergence"))
def alpha_divergence_of_clipped_ratios(inputs: Inputs, hyper: Hyper) -> Call:
    """An alpha-divergence where nothing is clipped; near 0 and 1 it is a KL divergence.

    Their loss is a surrogate, minus the sum of w ln q, whose constant weights w give it the
    gradient of the divergence. Its value is another one, which the offset is for.
    """
    alpha, clip = hyper.pop("alpha"), hyper.pop("iw_clip", 1e3)
    alpha = next((limit for limit in (0.0, 1.0) if abs(alpha - limit) < 1e-3), alpha)
    call = inputs.call("alpha_divergence", shift=False, alpha=alpha)
    log_p, log_q = scored(call)
    if not (log_p.isfinite() & log_q.isfinite()).all():
        raise Unsupported("it gives padded columns the logit 0")
    ratio = (log_p - log_q).exp()
    if ((ratio**alpha if alpha else ratio) > clip).any() and alpha != 1:
        raise Unsupported("with clipped ratios it is no divergence, and its gradient none of it")
    if alpha == 0:
        terms, weights = -ratio.log(), ratio.log() - 1
    elif alpha == 1:
        terms, weights = ratio * ratio.log(), ratio
    else:
        power, constant = ratio**alpha, 1 / (alpha * (alpha - 1))
        terms, weights = constant * (power - 1), power / alpha + constant
    surrogate, value = -log_q.exp() * weights * log_q, log_q.exp() * terms
    return replace(call, offset=(surrogate - value).sum(-1).mean())


def is_continuous(inputs: Inputs, hyper: Hyper, value: Tensor, gradient: Tensor) -> bool:
    """Not negative, and the mean of the values at parameters a little to either side.

    There the definition divides by no 0, and float64 carries it.
    """
    log_p, log_q = (side.double() for side in scored(inputs.call("alpha_beta")))
    possible = log_p.isfinite() | log_q.isfinite()
    log_p, log_q = log_p.masked_fill(~possible, 0.0), log_q.masked_fill(~possible, 0.0)
    around = []
    for step in (1e-4, -1e-4):
        a, b = hyper["alpha"] + step, hyper["beta"] + 2 * step
        terms = (a * log_p + b * log_q).exp()
        terms = terms - (a * ((a + b) * log_p).exp() + b * ((a + b) * log_q).exp()) / (a + b)
        around.append(-terms.sum(-1).mean().item() / (a * b))
    expected = sum(around) / 2
    return value.item() >= 0 and math.isclose(value.item(), expected, rel_tol=1e-3)


def in_a_limit(hyper: Hyper) -> bool:
    """One of a, b and a + b is 0, and the parameter that it divides by is not its own square."""
    a, b = hyper["alpha"], hyper["beta"]
    return a * b * (a + b) == 0 and (b if a == 0 else a) not in (0, 1)


defect(
    (ABKD, "ab_div"),
    entry=Defect(
        reason="where a parameter or their sum is 0, it divides by the other, not by its square",
        holds=is_continuous,
        applies=in_a_limit,
    ),
)
