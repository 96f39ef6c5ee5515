"""Multi-level optimal transport, with Hugging Face labels."""

import torch
from torch import Tensor
from torch.nn.functional import pad

import kd.losses.multi_level_ot_releases as releases
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
from tests.golden.uld import predicts_the_answer, skipping_end

REPOSITORY = "2018cx/Multi-Level-OT"
PORT = ("agokrani/distillKitPlus", "multi_level_ot_loss")


@source(
    (REPOSITORY, "DistillationLoss.forward (f=1, HEAD)"),
    (REPOSITORY, "DistillationLoss.forward (f=2 greedy, HEAD)"),
)
def since_2026(inputs: Inputs, hyper: Hyper) -> Call:
    return released(inputs, hyper, "head")


@source(
    (REPOSITORY, "DistillationLoss.forward (f=1, commit d8d298f)"),
    (REPOSITORY, "DistillationLoss.forward (f=2 greedy, commit d8d298f)"),
)
def before_2026(inputs: Inputs, hyper: Hyper) -> Call:
    return released(inputs, hyper, "pre202602")


def released(inputs: Inputs, hyper: Hyper, variant: str) -> Call:
    """Their temperatures divide standardised logits, on which ours would have no effect."""
    if hyper.pop("f", 1) == 2:
        raise Unsupported("greedy matching of as many columns as there are rows, instead of k")
    call = inputs.call(
        "multi_level_ot",
        reduction="sequence",
        variant=variant,
        top_k=hyper.pop("topk", 50),
        log_weight=hyper.pop("kl_weight", 0.1),
        sinkhorn_weight=hyper.pop("sinkhorn_weight", 0.1),
        standardised_student_temperature=hyper.pop("student_temperature", 1.0),
        standardised_teacher_temperature=hyper.pop("teacher_temperature", 1.0),
    )
    call.scale = hyper.pop("distillation_weight", 1.0)
    return skipping_end(call, hyper, "skip_student_eos", "skip_teacher_eos")


@source(PORT)
def port(inputs: Inputs, hyper: Hyper) -> Call:
    """The release that it is a port of. Its temperature divides logits, as it stands."""
    temperature = hyper.pop("temperature", 2.0)
    return inputs.call(
        "multi_level_ot",
        reduction="sequence",
        variant="pre202602",
        standardised_student_temperature=temperature,
        standardised_teacher_temperature=temperature,
        top_k=hyper.pop("k", 100),
        log_weight=hyper.pop("log_loss_weight", 0.1),
        sinkhorn_weight=hyper.pop("sikhorn_loss_weight", 0.1),
    )


@restated(PORT)
def faulty_port(inputs: Inputs, hyper: Hyper) -> Tensor:
    """The three terms of our release, of other rows and other probabilities."""
    own, other = (leading_probabilities(inputs, hyper, side) for side in ("student", "teacher"))
    width = max(own.shape[-1], other.shape[-1])
    own, other = (pad(side, (0, width - side.shape[-1])) for side in (own, other))
    paired = paired_lengths(inputs)
    cross_entropy = -(own.softmax(-1) * other.log_softmax(-1)).sum(-1).mean()
    return (
        releases._absolute_differences(own, other, paired)
        + hyper.get("log_loss_weight", 0.1) * cross_entropy
        + hyper.get("sikhorn_loss_weight", 0.1) * releases._sinkhorn(own, other)
    )


def leading_probabilities(inputs: Inputs, hyper: Hyper, side: str) -> Tensor:
    """The k largest of each row, for as many rows as any sequence has in pairs.

    Rows begin at the first answer token's own. Behind an answer's end they go on, up to the
    last one, which stands for all those that do not exist.
    """
    logits, scored = inputs[f"{side}_logits"], inputs.labels(side) != IGNORED
    first = scored.long().argmax(1, keepdim=True)
    rows = first + torch.arange(int(paired_lengths(inputs).max()))
    rows = rows.clamp(max=logits.shape[1] - 1)
    chosen = logits[torch.arange(len(logits))[:, None], rows] / hyper.get("temperature", 2.0)
    return chosen.softmax(-1).topk(min(hyper.get("k", 100), logits.shape[-1])).values


def paired_lengths(inputs: Inputs) -> Tensor:
    """How many answer tokens each sequence has on the side where it has fewer, [B]."""
    own, other = ((inputs.labels(side) != IGNORED).sum(1) for side in ("student", "teacher"))
    return torch.minimum(own, other)


def ignores_scale(inputs: Inputs, hyper: Hyper, value: Tensor, gradient: Tensor) -> bool:
    """Logits in units of their standard deviation: a row times a number changes nothing.

    So gradients are orthogonal to the logits, but for the 0.0001 added to the deviation.
    """
    products = gradient * inputs["student_logits"].detach()
    return bool((products.sum(-1).abs() <= 1e-3 * products.abs().sum(-1) + 1e-7).all())


defect(
    PORT,
    entry=Defect(
        reason="no causal shift: it reads the rows at the answer tokens, not those before them",
        holds=predicts_the_answer,
    ),
)


def ends_with_the_answer(inputs: Inputs, hyper: Hyper, value: Tensor, gradient: Tensor) -> bool:
    """No row behind the last answer token is read."""
    behind = (inputs.labels("student") != IGNORED).flip(1).cumsum(1).flip(1) == 0
    return not bool(gradient[behind].any())


def has_shorter_answers(inputs: Inputs, hyper: Hyper) -> bool:
    own = (inputs.labels("student") != IGNORED).sum(1)
    return bool((own < paired_lengths(inputs).max()).any())


defect(
    PORT,
    entry=Defect(
        reason="behind a shorter answer other rows of the sequence are read as if they were its",
        holds=ends_with_the_answer,
        applies=has_shorter_answers,
    ),
)
defect(
    PORT,
    entry=Defect(
        reason="logits are not divided by their standard deviation, as in what it is a port of",
        holds=ignores_scale,
    ),
)
