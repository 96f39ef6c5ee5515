"""AMiD. Labels stand at the row that predicts them: no shift."""

import math

from torch import Tensor

from tests.golden.calls import IGNORED, Call, Defect, Hyper, Inputs, defect, restated, source

AMID = ("aailab-kaist/AMiD", "amid")
DIVERGENCES = {"fkl": "kl", "ab": "alpha_beta"}
DEFAULTS = {
    "amid_alpha": 0.5,
    "amid_lam": 0.5,
    "amid_div_name": "fkl",
    "amid_div_order": "pr",
    "ab_alpha": 0.2,
    "ab_beta": 0.7,
}


@source(AMID)
def assistant(inputs: Inputs, hyper: Hyper) -> Call:
    given = DEFAULTS | hyper
    hyper.clear()
    unknown = set(given) - set(DEFAULTS)
    assert not unknown, f"hyper-parameters that no mapping reads: {sorted(unknown)}"
    return inputs.call(
        "amid",
        shift=False,
        alpha=given["amid_alpha"],
        teacher_weight=given["amid_lam"],
        divergence=DIVERGENCES[given["amid_div_name"]],
        order=given["amid_div_order"],
        ab_alpha=given["ab_alpha"],
        ab_beta=given["ab_beta"],
    )


@restated(AMID)
def geometric(inputs: Inputs, hyper: Hyper) -> Tensor:
    """The assistant of alpha = 1, whatever alpha is."""
    return assistant(inputs, hyper | {"amid_alpha": 1.0}).value()


def is_the_definition(inputs: Inputs, hyper: Hyper, value: Tensor, gradient: Tensor) -> bool:
    """The value is D of the power mean, evaluated as it is written, in float64."""
    hyper = DEFAULTS | hyper
    scored = inputs.labels("student") != IGNORED
    q, p = (
        inputs[f"{side}_logits"][scored].detach().double().softmax(-1)
        for side in ("student", "teacher")
    )
    exponent, weight = (1 - hyper["amid_alpha"]) / 2, hyper["amid_lam"]
    mean = (weight * p**exponent + (1 - weight) * q**exponent) ** (1 / exponent)
    sides = {"p": p, "q": q, "r": mean / mean.sum(-1, keepdim=True)}
    x, y = (sides[side] for side in hyper["amid_div_order"])
    if hyper["amid_div_name"] == "fkl":
        rows = (x * (x / y).log()).nansum(-1)
    else:
        a, b = hyper["ab_alpha"], hyper["ab_beta"]
        terms = x**a * y**b - (a * x ** (a + b) + b * y ** (a + b)) / (a + b)
        rows = -terms.nansum(-1) / (a * b)
    return math.isclose(value.item(), rows.mean().item(), rel_tol=2e-5, abs_tol=2e-6)


defect(
    AMID,
    entry=Defect(
        reason="every alpha above 1 takes the geometric mean instead of the power mean",
        holds=is_the_definition,
        applies=lambda inputs, hyper: (
            hyper.get("amid_alpha", 0.5) > 1 and 0 < hyper.get("amid_lam", 0.5) < 1
        ),
    ),
)
