"""Functions of the KL family. Labels stand at the row that predicts them: no shift."""

from dataclasses import replace

import torch
from torch import Tensor

from tests.golden.calls import IGNORED, Call, Hyper, Inputs, Unsupported, source

DISTILLM = "jongwooko/distillm"
ABKD = "ghwang-s/abkd"  # these two repositories begin with copies of the first one's losses
AMID = "aailab-kaist/AMiD"
DSKD = "songmzhang/DSKD"
KDFLOW = "songmzhang/KDFlow"
TOKENKIT = "bminixhofer/tokenkit"
TORCHTUNE = "pytorch/torchtune"


@source(
    (DISTILLM, "forward_kl"),
    (ABKD, "forward_kl"),
    (AMID, "forward_kl"),
    (TORCHTUNE, "ForwardKLLoss"),
)
def cross_entropy_form(inputs: Inputs, hyper: Hyper) -> Call:
    """H(p, q): the teacher's entropy is not subtracted."""
    call = inputs.call("forward_kl", shift=False)
    return replace(call, offset=teacher_entropy(call))


@source(
    (DISTILLM, "reverse_kl"),
    (ABKD, "reverse_kl"),
    (AMID, "reverse_kl"),
    (TORCHTUNE, "ReverseKLLoss"),
)
def mean_reverse_kl(inputs: Inputs, hyper: Hyper) -> Call:
    return inputs.call("reverse_kl", shift=False)


@source((TORCHTUNE, "SymmetricKLLoss"))
def weight_of_forward_kl(inputs: Inputs, hyper: Hyper) -> Call:
    return symmetric_kl(inputs, hyper.pop("sym_kd_ratio", 0.5))


@source(
    (DISTILLM, "symmetric_kl"),
    (ABKD, "symmetric_kl"),
    (AMID, "symmetric_kl"),
)
def weight_of_reverse_kl(inputs: Inputs, hyper: Hyper) -> Call:
    return symmetric_kl(inputs, 1 - hyper.pop("lam", 0.9))


@source((ABKD, "wsd"), (AMID, "wsd"))
def balanced_weight_of_reverse_kl(inputs: Inputs, hyper: Hyper) -> Call:
    return symmetric_kl(inputs, 1 - hyper.pop("lam", 0.5))


def symmetric_kl(inputs: Inputs, forward_weight: float) -> Call:
    """The forward part is the cross-entropy."""
    call = inputs.call("symmetric_kl", shift=False, forward_weight=forward_weight)
    return replace(call, offset=forward_weight * teacher_entropy(call))


@source((DSKD, "VariousDivergence.compute_forward_kl_divergence"))
def summed_kl(inputs: Inputs, hyper: Hyper) -> Call:
    return summed(inputs, hyper, "forward_kl")


@source((DSKD, "VariousDivergence.compute_reverse_kl_divergence"))
def summed_reverse_kl(inputs: Inputs, hyper: Hyper) -> Call:
    return summed(inputs, hyper, "reverse_kl")


def summed(inputs: Inputs, hyper: Hyper, name: str) -> Call:
    hyper.pop("skew_lambda", None)  # read by the skewed divergences only
    temperature = hyper.pop("kd_temperature")
    return inputs.call(name, shift=False, temperature=temperature, normalizer=1)


@source((TOKENKIT, "compute_forward_kl_divergence"))
def summed_kl_everywhere(inputs: Inputs, hyper: Hyper) -> Call:
    return inputs.call("forward_kl", shift=False, normalizer=1)


@source((TOKENKIT, "compute_reverse_kl_divergence"))
def summed_reverse_kl_everywhere(inputs: Inputs, hyper: Hyper) -> Call:
    return inputs.call("reverse_kl", shift=False, normalizer=1)


@source((KDFLOW, "compute_kl_div"))
def tempered_kl(inputs: Inputs, hyper: Hyper) -> Call:
    return tempered(inputs, hyper, "forward_kl")


@source((KDFLOW, "compute_reverse_kl_div"))
def tempered_reverse_kl(inputs: Inputs, hyper: Hyper) -> Call:
    return tempered(inputs, hyper, "reverse_kl")


@source((KDFLOW, "compute_top1_ce"))
def tempered_top1(inputs: Inputs, hyper: Hyper) -> Call:
    return tempered(inputs, hyper, "top1_cross_entropy")


@source((KDFLOW, "compute_hierarchical_ranking_loss"))
def hierarchical_ranking(inputs: Inputs, hyper: Hyper) -> Call:
    raise Unsupported(
        "it decides which tokens the teacher ranks apart by comparing the student's "
        "probabilities with the teacher's"
    )


def tempered(inputs: Inputs, hyper: Hyper, name: str) -> Call:
    return inputs.call(name, shift=False, temperature=hyper.pop("temperature", 1.0))


@source(("arcee-ai/DistillKit", "dense_kl_div then *T^2/num_items (KLDLoss)"))
def mean_kl_times_t2(inputs: Inputs, hyper: Hyper) -> Call:
    temperature = hyper.pop("temperature")
    return inputs.call("forward_kl", shift=False, temperature=temperature, t2_scaling=True)


@source(("agokrani/distillKitPlus", "forward_kl"))
def unmasked_kl_times_t2(inputs: Inputs, hyper: Hyper) -> Call:
    """Every position counts; the teacher is cut, or padded with -inf, to the student's width."""
    hyper.setdefault("temperature", 2.0)
    call = mean_kl_times_t2(inputs, hyper)
    width = call.student_logits.shape[-1]
    teacher = inputs["teacher_logits"][..., :width]
    padding = (0, width - teacher.shape[-1])
    everywhere = inputs.everywhere("student")
    return replace(
        call,
        teacher_logits=torch.nn.functional.pad(teacher, padding, value=-torch.inf),
        student_labels=everywhere,
        teacher_labels=everywhere,
    )


def teacher_entropy(call: Call) -> Tensor:
    """Mean entropy of a dense, unshifted teacher over the scored positions."""
    return entropies(scored(call)[0]).mean()


def scored(call: Call) -> tuple[Tensor, Tensor]:
    """Log-probabilities of a dense, unshifted teacher and of the student, scored rows only."""
    assert isinstance(call.teacher_logits, Tensor) and call.teacher_labels is not None
    teacher, student = (
        logits[labels != IGNORED].detach().log_softmax(-1)
        for logits, labels in (
            (call.teacher_logits, call.teacher_labels),
            (call.student_logits, call.student_labels),
        )
    )
    return teacher, student


def entropies(log_probs: Tensor) -> Tensor:
    return -(log_probs.exp() * log_probs).nansum(-1)
