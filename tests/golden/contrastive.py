"""DistiLLM-2's branches: one for the text of each side, each a mean over sequences."""

import torch

from kd.losses import Extras
from tests.golden.calls import Call, Hyper, Inputs, source

REPOSITORY = "jongwooko/distillm-2"


@source((REPOSITORY, "DistiLLMTrainer.get_batch_logps[tea_pos_kl]"))
def on_teacher_responses(inputs: Inputs, hyper: Hyper) -> Call:
    return written_by(inputs, student=False, skew=hyper.pop("base_alpha_1", 0.1))


@source((REPOSITORY, "DistiLLMTrainer.get_batch_logps[ref_pos_kl]"))
def on_student_responses(inputs: Inputs, hyper: Hyper) -> Call:
    return written_by(inputs, student=True, skew=hyper.pop("base_alpha_2", 0.1))


@source((REPOSITORY, "get_batch_logps loss_type=gkd"))
def jensen_shannon_branch(inputs: Inputs, hyper: Hyper) -> Call:
    return inputs.call(
        "jensen_shannon", shift=False, reduction="sequence", teacher_weight=hyper.pop("alpha", 0.9)
    )


def written_by(inputs: Inputs, *, student: bool, skew: float) -> Call:
    """All sequences from one side; the student inside the mixture is detached in their code."""
    sequences = len(inputs["student_logits"])
    return inputs.call(
        "cald",
        shift=False,
        reduction="sequence",
        skew=skew,
        detach_mixture=True,
        extras=Extras(student_responses=torch.full((sequences,), student)),
    )
