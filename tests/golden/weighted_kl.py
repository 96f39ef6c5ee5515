"""KL divergences weighted by token. Labels stand at the row that predicts them: no shift."""

import math
from dataclasses import replace

from torch import Tensor

from tests.golden.calls import (
    IGNORED,
    Call,
    Defect,
    Hyper,
    Inputs,
    Unsupported,
    defect,
    restated,
    source,
)
from tests.golden.kl import ABKD, AMID, DSKD, KDFLOW, TOKENKIT, entropies, scored

TAID = "SakanaAI/TAID"


OFFICIAL = (
    ("wutaiqiang/LLM_KD_AKL", "get_ratio+get_kl (AKL() itself lacks a return statement)"),
    (ABKD, "AKL"),
    (AMID, "AKL"),
)


@source(*OFFICIAL)
def official_head(inputs: Inputs, hyper: Hyper) -> Call:
    return inputs.call(
        "adaptive_kl", shift=False, head_rule="prefix", head_mass=hyper.pop("mu", 0.5)
    )


def ignores_padding(inputs: Inputs, hyper: Hyper, value: Tensor, gradient: Tensor) -> bool:
    """Columns of probability 0 on both sides change nothing: the value without them.

    It is computed token by token: the likeliest one, and those after it while their cumulative
    mass is at most mu, are the head. Their own gradient is 0.
    """
    columns = inputs.padding()
    log_p, log_q = scored(inputs.without(columns).call("adaptive_kl"))
    rows = []
    for p, q in zip(log_p.double().exp().tolist(), log_q.double().exp().tolist(), strict=True):
        mass, gaps = 0.0, {"head": 0.0, "tail": 0.0}
        for rank, (a, b) in enumerate(sorted(zip(p, q, strict=True), reverse=True)):
            mass += a
            in_head = rank == 0 or mass <= hyper.get("mu", 0.5)
            gaps["head" if in_head else "tail"] += abs(a - b)
        rows.append(weighed(p, q, gaps))
    close = math.isclose(value.item(), sum(rows) / len(rows), rel_tol=2e-5, abs_tol=2e-6)
    return close and not bool(gradient[..., columns].any())


def weighed(p: list[float], q: list[float], gaps: dict[str, float]) -> float:
    """Both divergences of a row, weighed by the gaps in head and tail; 0 of equal rows."""
    pairs = [(a, b) for a, b in zip(p, q, strict=True) if a and b]
    forward = sum(a * math.log(a / b) for a, b in pairs)
    reverse = sum(b * math.log(b / a) for a, b in pairs)
    return (gaps["head"] * forward + gaps["tail"] * reverse) / (sum(gaps.values()) or 1.0)


@restated(*OFFICIAL)
def padded_head(inputs: Inputs, hyper: Hyper) -> Tensor:
    """Head and tail are found and weighed with the logit 0 for -inf; the divergences are not."""
    rows = inputs.labels("student") != IGNORED
    p, q = (
        inputs[f"{side}_logits"][rows].detach().nan_to_num(neginf=0.0).softmax(-1)
        for side in ("teacher", "student")
    )
    likeliest = p.argsort(-1, descending=True)
    head = p.gather(-1, likeliest).cumsum(-1) <= hyper.get("mu", 0.5)
    head[:, 0] = True
    gaps = (p - q).abs().gather(-1, likeliest)
    share = (gaps * head).sum(-1) / gaps.sum(-1)
    kept = inputs.without(inputs.padding())
    log_p, log_q = (kept[f"{side}_logits"][rows].log_softmax(-1) for side in ("teacher", "student"))
    forward = (log_p.exp() * (log_p - log_q)).sum(-1)
    reverse = (log_q.exp() * (log_q - log_p)).sum(-1)
    return (share * forward + (1 - share) * reverse).mean()


defect(
    *OFFICIAL,
    entry=Defect(
        reason="columns that pad the vocabulary (logit -inf) count with the logit 0 where head "
        "and tail are found and weighed",
        holds=ignores_padding,
        applies=lambda inputs, hyper: bool(inputs.padding().any()),
    ),
)


@source((DSKD, "VariousDivergence.compute_adaptive_kl_divergence"))
def summed_crossing_head(inputs: Inputs, hyper: Hyper) -> Call:
    call = crossing_head(inputs, hyper.pop("adaptive_kl_alpha", 0.5))
    call.settings |= {"temperature": hyper.pop("kd_temperature"), "normalizer": 1}
    return call


@source((KDFLOW, "compute_adaptive_kl_div"))
def tempered_crossing_head(inputs: Inputs, hyper: Hyper) -> Call:
    call = crossing_head(inputs, hyper.pop("adaptive_kl_alpha", 0.5))
    call.settings["temperature"] = hyper.pop("temperature", 1.0)
    return call


@source((TOKENKIT, "compute_adaptive_kl_divergence"))
def crossing_head_everywhere(inputs: Inputs, hyper: Hyper) -> Call:
    call = crossing_head(inputs, hyper.pop("alpha", 0.5))
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
            gaps["tail" if mass < hyper.get("head_threshold", 0.5) else "head"] += abs(a - b)
        rows.append(weighed(p, q, gaps))
    return math.isclose(value.item(), sum(rows) / len(rows), rel_tol=2e-5)


@restated((TAID, "AdaptiveKL.forward"))
def misplaced_head(inputs: Inputs, hyper: Hyper) -> Tensor:
    """The ranks of the tail's tokens, taken for their ids; the weights get gradients."""
    rows = inputs.labels("student") != IGNORED
    log_p, log_q = (
        inputs[f"{side}_logits"][rows].log_softmax(-1) for side in ("teacher", "student")
    )
    p, q = log_p.exp(), log_q.exp()
    tail = p.sort(-1).values.cumsum(-1) < hyper.get("head_threshold", 0.5)
    gaps = (p - q).abs()
    share = (gaps * tail).sum(-1) / gaps.sum(-1)
    cross_entropy, reverse = -(p * log_q).sum(-1), (q * (log_q - log_p)).sum(-1)
    return ((1 - share) * cross_entropy + share * reverse).mean()


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
