"""Functions that are universal logit distillation, with Hugging Face labels unless said."""

import math
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from tests.golden.calls import IGNORED, Call, Defect, Hyper, Inputs, defect, restated, source

LEADING_ULD = ("agokrani/distillKitPlus", "uld_loss")


@source(("Nicolas-BZRD/llm-recipes", "DistillationLoss.forward -> distillation_loss"))
def llm_recipes_uld(inputs: Inputs, hyper: Hyper) -> Call:
    call = inputs.call(
        "uld",
        reduction="sequence",
        temperature=hyper.pop("student_temperature", 1.0),
        teacher_temperature=hyper.pop("teacher_temperature", 1.0),
    )
    call.scale = hyper.pop("distillation_weight", 1.0)
    return skipping_end(call, hyper, "skip_student_eos", "skip_teacher_eos")


@source(("songmzhang/DSKD", "UniversalLogitDistillation.compute_universal_logit_distillation_loss"))
def summed_uld(inputs: Inputs, hyper: Hyper) -> Call:
    return inputs.call("uld", shift=False, normalizer=1)


@source(("bminixhofer/tokenkit", "compute_baseline_uld_loss"))
def whole_sequence_uld(inputs: Inputs, hyper: Hyper) -> Call:
    """Position by position under the student's attention mask, prompt and all."""
    padding = inputs["attention_mask_student"] == 0
    labels = inputs.everywhere("student").masked_fill(padding, IGNORED)
    return replace(inputs.call("uld", shift=False), student_labels=labels)


@source(LEADING_ULD)
def leading_uld(inputs: Inputs, hyper: Hyper) -> Call:
    """Theirs compares the k likeliest tokens only: not ULD, which ours is."""
    hyper.pop("k", 100)
    return inputs.call("uld", reduction="sequence", temperature=hyper.pop("temperature", 2.0))


def predicts_the_answer(inputs: Inputs, hyper: Hyper, value: Tensor, gradient: Tensor) -> bool:
    """The rows before answer tokens are read, the first one of each sequence, and no others."""
    own, other = (predicting(inputs.labels(side)) for side in ("student", "teacher"))
    first = own & (own.cumsum(dim=1) == 1) & other.any(dim=1, keepdim=True)
    reached = gradient.abs().sum(dim=-1) > 0
    return bool(reached[first].all()) and not bool((reached & ~own).any())


def predicting(labels: Tensor) -> Tensor:
    """Which rows of logits predict an answer token, [B, T] for Hugging Face labels."""
    return torch.nn.functional.pad(labels[:, 1:] != IGNORED, (0, 1))


defect(
    LEADING_ULD,
    entry=Defect(
        reason="no causal shift: it reads the rows at the answer tokens, not those before them",
        holds=predicts_the_answer,
    ),
)


def has_all_of_the_mass(inputs: Inputs, hyper: Hyper, value: Tensor, gradient: Tensor) -> bool:
    """Rows of mass 1 on both sides differ by twice what one has more than the other.

    Whichever the rows are, those before the answer tokens or those at them: both are tried.
    """
    return any(
        math.isclose(value.item(), 2 * excess.item(), rel_tol=2e-5, abs_tol=2e-6)
        for excess in (
            paired_mean(inputs, hyper, lambda p, q: (p - q).clamp(min=0), start=start)
            for start in (-1, 0)
        )
    )


def paired_mean(
    inputs: Inputs,
    hyper: Hyper,
    compare: Callable[[Tensor, Tensor], Tensor],
    *,
    start: int,
    kept: int | None = None,
) -> Tensor:
    """Mean over sequences of what the paired rows, sorted, are compared to.

    The first row is `start` rows after the first answer token's own. Without `kept` all of the
    tokens are compared.
    """
    sequences = []
    for b in range(len(inputs["student_logits"])):
        sides, lengths = [], []
        for side in ("teacher", "student"):
            answer = (inputs.labels(side)[b] != IGNORED).nonzero()[:, 0]
            if not len(answer):
                break
            lengths.append(len(answer))
            logits = inputs[f"{side}_logits"][b, int(answer[0]) + start :]
            probs = (logits / hyper.get("temperature", 2.0)).softmax(-1)
            sides.append(probs.sort(-1, descending=True).values[:, :kept])
        else:
            width = max(side.shape[-1] for side in sides)
            p, q = (
                torch.nn.functional.pad(side[: min(lengths)], (0, width - side.shape[-1]))
                for side in sides
            )
            sequences.append(compare(p, q).sum(-1).mean())
    return torch.stack(sequences).mean()


@restated(LEADING_ULD)
def unshifted_leading_uld(inputs: Inputs, hyper: Hyper) -> Tensor:
    """The k largest probabilities, at the answer tokens themselves, and nothing of the rest."""
    return paired_mean(inputs, hyper, lambda p, q: (p - q).abs(), start=0, kept=hyper.get("k", 100))


def truncates(inputs: Inputs, hyper: Hyper) -> bool:
    widths = (inputs[f"{side}_logits"].shape[-1] for side in ("student", "teacher"))
    return bool(hyper.get("k", 100) < max(widths))


defect(
    LEADING_ULD,
    entry=Defect(
        reason="the tokens beyond the k likeliest ones are left out, and with them their mass",
        holds=has_all_of_the_mass,
        applies=truncates,
    ),
)


def skipping_end(call: Call, hyper: Hyper, student: str, teacher: str) -> Call:
    """Leave out the end-of-text token on each side for which the flag is set."""
    skip_student, skip_teacher = hyper.get(student, False), hyper.get(teacher, False)
    for flag in {student, teacher}:
        hyper.pop(flag, None)
    assert call.teacher_labels is not None
    if skip_student:
        call.student_labels = without_last(call.student_labels)
    if skip_teacher:
        call.teacher_labels = without_last(call.teacher_labels)
    return call


def without_last(labels: Tensor) -> Tensor:
    """Labels without the last scored token of each sequence (its end-of-text token)."""
    shortened = labels.clone()
    for row in shortened:
        scored = (row != IGNORED).nonzero()
        row[scored[-1:]] = IGNORED
    return shortened
