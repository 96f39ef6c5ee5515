"""Functions that are universal logit distillation, with Hugging Face labels unless said."""

from dataclasses import replace

from torch import Tensor

from tests.golden.calls import IGNORED, Call, Hyper, Inputs, source


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
