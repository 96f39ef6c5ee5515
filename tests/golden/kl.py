"""Functions that are forward KL. Labels stand at the row that predicts them: no shift."""

from dataclasses import replace

import torch
from torch import Tensor

from kd.losses import TeacherLogits
from tests.golden.calls import IGNORED, Call, Hyper, Inputs, NotYet, source


@source(
    ("jongwooko/distillm", "forward_kl"),
    ("ghwang-s/abkd", "forward_kl"),
    ("aailab-kaist/AMiD", "forward_kl"),
    ("pytorch/torchtune", "ForwardKLLoss"),
)
def cross_entropy_form(inputs: Inputs, hyper: Hyper) -> Call:
    """H(p, q): the teacher's entropy is not subtracted."""
    call = inputs.call("forward_kl", shift=False)
    return replace(call, offset=teacher_entropy(call))


@source(("songmzhang/DSKD", "VariousDivergence.compute_forward_kl_divergence"))
def summed_kl(inputs: Inputs, hyper: Hyper) -> Call:
    hyper.pop("skew_lambda", None)  # read by the skewed divergences only
    temperature = hyper.pop("kd_temperature")
    return inputs.call("forward_kl", shift=False, temperature=temperature, normalizer=1)


@source(("bminixhofer/tokenkit", "compute_forward_kl_divergence"))
def summed_kl_everywhere(inputs: Inputs, hyper: Hyper) -> Call:
    return inputs.call("forward_kl", shift=False, normalizer=1)


@source(("songmzhang/KDFlow", "compute_kl_div"))
def mean_kl(inputs: Inputs, hyper: Hyper) -> Call:
    return inputs.call("forward_kl", shift=False, temperature=hyper.pop("temperature", 1.0))


@source(("arcee-ai/DistillKit", "dense_kl_div then *T^2/num_items (KLDLoss)"))
def mean_kl_times_t2(inputs: Inputs, hyper: Hyper) -> Call:
    temperature = hyper.pop("temperature")
    return inputs.call("forward_kl", shift=False, temperature=temperature, t2_scaling=True)


@source(("agokrani/distillKitPlus", "forward_kl"))
def unmasked_kl_times_t2(inputs: Inputs, hyper: Hyper) -> Call:
    """Every position counts; the teacher is cut, or padded with -inf, to the student's width."""
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


@source(
    ("huggingface/trl", "GKDTrainer.generalized_jsd_loss"),
    ("huggingface/trl", "generalized_jsd_loss"),
    ("huggingface/trl", "_chunked_divergence_loss (identity lm_head)"),
    ("linkedin/Liger-Kernel", "LigerFusedLinearJSDFunction.distillation_loss_fn"),
)
def generalised_jsd(inputs: Inputs, hyper: Hyper) -> Call:
    """Teacher weight 0 is a branch of its own: forward KL."""
    if hyper.pop("beta") != 0:
        raise NotYet("generalised Jensen-Shannon divergence, reverse KL")
    call = mean_kl(inputs, hyper)
    if "labels" in hyper and hyper.pop("labels") is None:
        call.student_labels = call.teacher_labels = inputs.everywhere("student")
        call.settings["normalizer"] = len(call.student_labels)
    return call


@source(("arcee-ai/DistillKit", "sparse_kl_div then *T^2/num_items"))
def sparse_kl_times_t2(inputs: Inputs, hyper: Hyper) -> Call:
    """Teacher top-k: renormalised, or with one more outcome for the mass that is missing."""
    assert hyper.pop("log_target")
    temperature, log_probs = hyper.pop("temperature"), inputs["target_logprobs"]
    if hyper.pop("missing") == "symmetric_uniform":
        missing = (1 - log_probs.exp().sum(-1, keepdim=True)).log()
        log_probs = torch.cat([log_probs, missing], dim=-1)
    log_probs = (log_probs / temperature).log_softmax(-1)
    call = inputs.call(
        "forward_kl",
        shift=False,
        temperature=temperature,
        teacher_temperature=1.0,  # the stored log-probabilities already are at `temperature`
        t2_scaling=True,
    )
    return replace(call, teacher_logits=at_answers(inputs, log_probs), teacher_labels=None)


def at_answers(inputs: Inputs, log_probs: Tensor) -> TeacherLogits:
    """Top-k log-probabilities [B, T, K or K + 1] at the scored positions only."""
    scored = inputs["labels"] != IGNORED
    lengths, kept = scored.sum(1), inputs["target_ids"].shape[-1]
    padded = [
        torch.nn.utils.rnn.pad_sequence(
            [rows[mask] for rows, mask in zip(values, scored, strict=True)], batch_first=True
        )
        for values in (inputs["target_ids"].long(), log_probs)
    ]
    missing = padded[1][..., kept:].exp().sum(-1) if log_probs.shape[-1] > kept else None
    return TeacherLogits(
        ids=padded[0],
        log_probs=padded[1][..., :kept],
        dropped=torch.zeros(padded[0].shape[:2]) if missing is None else missing,
        lengths=lengths,
        vocabulary=inputs["student_logits"].shape[-1],
    )


def teacher_entropy(call: Call) -> Tensor:
    """Mean entropy of a dense, unshifted teacher over the scored positions."""
    assert isinstance(call.teacher_logits, Tensor) and call.teacher_labels is not None
    log_p = call.teacher_logits[call.teacher_labels != IGNORED].log_softmax(-1)
    return -(log_p.exp() * log_p).nansum(-1).mean()
