"""KL divergences weighted by token. Labels stand at the row that predicts them: no shift."""

import math
from dataclasses import replace

from torch import Tensor

from tests.golden.calls import IGNORED, Call, Defect, Hyper, Inputs, Unsupported, defect, source
from tests.golden.kl import ABKD, AMID, DSKD, KDFLOW, TOKENKIT, entropies, scored

TAID = "SakanaAI/TAID"


@source(
    ("wutaiqiang/LLM_KD_AKL", "get_ratio+get_kl (AKL() itself lacks a return statement)"),
    (ABKD, "AKL"),
    (AMID, "AKL"),
)
def official_head(inputs: Inputs, hyper: Hyper) -> Call:
    if any(inputs[f"{side}_logits"].isinf().any() for side in ("student", "teacher")):
        raise Unsupported("it gives padded columns the logit 0 where it weighs head and tail")
    return inputs.call(
        "adaptive_kl", shift=False, head_rule="prefix", head_mass=hyper.pop("mu", 0.5)
    )


@source((DSKD, "VariousDivergence.compute_adaptive_kl_divergence"))
def summed_crossing_head(inputs: Inputs, hyper: Hyper) -> Call:
    call = crossing_head(inputs, hyper.pop("adaptive_kl_alpha"))
    call.settings |= {"temperature": hyper.pop("kd_temperature"), "normalizer": 1}
    return call


@source((KDFLOW, "compute_adaptive_kl_div"))
def tempered_crossing_head(inputs: Inputs, hyper: Hyper) -> Call:
    call = crossing_head(inputs, hyper.pop("adaptive_kl_alpha", 0.5))
    call.settings["temperature"] = hyper.pop("temperature", 1.0)
    return call


@source((TOKENKIT, "compute_adaptive_kl_divergence"))
def crossing_head_everywhere(inputs: Inputs, hyper: Hyper) -> Call:
    call = crossing_head(inputs, hyper.pop("alpha"))
    call.settings["normalizer"] = 1
    return call


@source((TAID, "AdaptiveKL.forward"))
def intended_head(inputs: Inputs, hyper: Hyper) -> Call:
    return crossing_head(inputs, hyper.pop("head_threshold", 0.5))


def crossing_head(inputs: Inputs, tail_mass: float) -> Call:
    return inputs.call("adaptive_kl", shift=False, head_rule="crossing", head_mass=1 - tail_mass)


def is_the_definition(inputs: Inputs, hyper: Hyper, value: Tensor, gradient: Tensor) -> bool:
    """The value, computed token by token: least likely ones are tail up to their mass."""
    log_p, log_q = scored(inputs.call("adaptive_kl"))
    rows = []
    for p, q in zip(log_p.double().exp().tolist(), log_q.double().exp().tolist(), strict=True):
        mass, gaps = 0.0, {"head": 0.0, "tail": 0.0}
        for a, b in sorted(zip(p, q, strict=True)):
            mass += a
            gaps["tail" if mass < hyper["head_threshold"] else "head"] += abs(a - b)
        pairs = [(a, b) for a, b in zip(p, q, strict=True) if a and b]
        forward = sum(a * math.log(a / b) for a, b in pairs)
        reverse = sum(b * math.log(b / a) for a, b in pairs)
        total = sum(gaps.values())
        rows.append((gaps["head"] * forward + gaps["tail"] * reverse) / total)
    return math.isclose(value.item(), sum(rows) / len(rows), rel_tol=2e-5)


defect(
    (TAID, "AdaptiveKL.forward"),
    entry=Defect(
        reason="the head of the sorted tokens is looked up among the unsorted ones, gradients "
        "flow through the weights, and the teacher's entropy is missing",
        holds=is_the_definition,
    ),
)


@source((ABKD, "bdkd"))
def weight_three(inputs: Inputs, hyper: Hyper) -> Call:
    return balanced(inputs, 3.0)


@source((AMID, "bdkd"))
def weight_two(inputs: Inputs, hyper: Hyper) -> Call:
    return balanced(inputs, 2.0)


def balanced(inputs: Inputs, weight: float) -> Call:
    """The forward part is the cross-entropy, so its weight counts the teacher's entropy too."""
    call = inputs.call("balanced_kl", shift=False, weight=weight)
    of_teacher, of_student = map(entropies, scored(call))
    weights = 1 + (weight - 1) * (of_teacher > of_student)
    return replace(call, offset=(weights * of_teacher).mean())


@source((TAID, "dkd_loss"))
def decoupled(inputs: Inputs, hyper: Hyper) -> Call:
    """The sum over scored positions is divided by the number of all positions."""
    if hyper.pop("logit_stand", False):
        raise Unsupported("logits standardised over the vocabulary")
    call = inputs.call(
        "decoupled_kl",
        shift=False,
        target_weight=hyper.pop("alpha", 1.0),
        others_weight=hyper.pop("beta", 0.5),
        temperature=hyper.pop("temperature", 1.0),
        t2_scaling=True,
    )
    labels = call.student_labels
    return replace(call, scale=(labels != IGNORED).sum().item() / labels.numel())
