"""Functions that are minimum edit distance: labels are those of the very same position."""

import torch
from torch import Tensor

from kd.losses import Setup
from kd.losses.mined import nearest_tokens
from kd.losses.setup import Vocabularies
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

PORT = (
    "songmzhang/DSKD",
    "MinEditDisForwardKLD.get_aligned_teacher_logits + compute_forward_kl_divergence",
)


@source(PORT)
def mined(inputs: Inputs, hyper: Hyper) -> Call:
    """Token strings come with their marks, which stand for spaces, and end-of-text as text."""
    student, teacher = (
        [token.replace("Ġ", " ").replace("▁", " ") for token in hyper.pop(f"{side}_tokens")]
        for side in ("student", "teacher")
    )
    hyper.pop("student_to_teacher_ids")  # the same mapping in the other direction
    if nearest_tokens(teacher, student) != hyper.pop("teacher_to_student_id"):
        raise Unsupported("a mapping of vocabularies that is not the one by edit distance")
    return inputs.call(
        "mined",
        shift=False,
        normalizer=1,
        temperature=hyper.pop("kd_temperature"),
        setup=Setup(vocabularies=Vocabularies(student, teacher)),
    )


def taught_by_the_teacher_or_the_text(
    inputs: Inputs, hyper: Hyper, value: Tensor, gradient: Tensor
) -> bool:
    """What every token is taught, which the gradient (q - r) / T tells, has to come from somewhere.

    r is the token itself, or the distribution of one of the teacher's rows whose own token is
    mapped to it; and the value is the sum of KL(r || q).
    """
    temperature = hyper["kd_temperature"]
    scored = inputs["student_labels"] != IGNORED
    log_q = (inputs["student_logits"] / temperature).log_softmax(-1)[scored]
    taught = log_q.exp() - temperature * gradient[scored]
    targets = inputs["student_labels"][scored]
    others = inputs["teacher_labels"] != IGNORED
    goals = torch.tensor(hyper["teacher_to_student_id"])
    moved = move(inputs["teacher_logits"][others] / temperature, goals, log_q.shape[-1])
    mapped = goals[inputs["teacher_labels"][others]]
    for row, target in zip(taught, targets, strict=True):
        itself = torch.nn.functional.one_hot(target, log_q.shape[-1]).to(row.dtype)
        choices = torch.cat([itself[None], moved[mapped == target]])
        if (choices - row).abs().max(-1).values.min() > 1e-5:
            return False
    taught = taught.clamp(min=0)  # rounding errors of q - q
    divergence = (torch.special.xlogy(taught, taught) - taught * log_q).sum()
    return bool(torch.isclose(divergence, value, rtol=1e-4, atol=1e-4))


def move(logits: Tensor, goals: Tensor, width: int) -> Tensor:
    """Softmax over the student's tokens, each with the largest logit that is mapped to it."""
    largest = torch.full((len(logits), width), -torch.inf)
    for token, goal in enumerate(goals):
        largest[:, goal] = torch.maximum(largest[:, goal], logits[:, token])
    return largest.softmax(-1)


@restated(PORT)
def nothing(inputs: Inputs, hyper: Hyper) -> Tensor:
    """Both sides of their divergence are the same tensor."""
    return 0 * inputs["student_logits"].sum()


defect(
    PORT,
    entry=Defect(
        reason=(
            "The moved logits are written into a detached view of the student's own, which "
            "thereby equal them: in float32 value and gradient are 0 whatever the student says. "
            "Pairs are of the tokens before those that are predicted."
        ),
        holds=taught_by_the_teacher_or_the_text,
    ),
)
