"""Divergences on a stored top-k. Labels stand at the row that predicts them: no shift."""

from dataclasses import replace

import torch
from torch import Tensor

from kd.losses import TeacherLogits
from tests.golden.calls import IGNORED, Call, Hyper, Inputs, source

DISTILLKIT = "arcee-ai/DistillKit"


@source((DISTILLKIT, "sparse_kl_div then *T^2/num_items"))
def sparse_kl(inputs: Inputs, hyper: Hyper) -> Call:
    return sparse_times_t2(inputs, hyper, "forward_kl")


@source((DISTILLKIT, "sparse_js_div then *T^2/num_items"))
def sparse_jensen_shannon(inputs: Inputs, hyper: Hyper) -> Call:
    return sparse_times_t2(inputs, hyper, "jensen_shannon")


@source((DISTILLKIT, "sparse_tvd then *T^2/num_items"))
def sparse_total_variation(inputs: Inputs, hyper: Hyper) -> Call:
    return sparse_times_t2(inputs, hyper, "total_variation")


def sparse_times_t2(inputs: Inputs, hyper: Hyper, name: str) -> Call:
    """Teacher top-k: renormalised, or with one more outcome for the mass that is missing.

    Renormalised, the teacher gives nothing to that outcome, and stored logits are as good as
    log-probabilities.
    """
    temperature, log_probs = hyper.pop("temperature"), inputs["target_logprobs"]
    stored_log_probs = hyper.pop("log_target", True)
    if hyper.pop("missing", "zero") == "symmetric_uniform":
        assert stored_log_probs, "the missing mass is not known of logits"
        missing = (1 - log_probs.exp().sum(-1, keepdim=True)).log()
        log_probs = torch.cat([log_probs, missing], dim=-1)
    log_probs = (log_probs / temperature).log_softmax(-1)
    call = inputs.call(
        name,
        shift=False,
        temperature=temperature,
        teacher_temperature=1.0,  # the stored log-probabilities already are at `temperature`
        t2_scaling=True,
    )
    return replace(call, teacher_logits=at_answers(inputs, log_probs), teacher_labels=None)


@source(("axolotl-ai-cloud/axolotl", "loss"))
def top_k_kl(inputs: Inputs, hyper: Hyper) -> Call:
    """The sum of p ln(p / q) over the stored tokens, with p as it is stored.

    Their callers renormalise p and give it the temperature. Without a number of items the sum
    is divided by the number of stored entries, K times that of the tokens.
    """
    items, kept = hyper.pop("num_items_in_batch", -1), inputs["target_ids"].shape[-1]
    call = inputs.call(
        "forward_kl",
        shift=False,
        temperature=hyper.pop("kd_temperature", 1.0),
        teacher_temperature=1.0,
        normalizer=items if items > 0 else None,
    )
    return replace(
        call,
        teacher_logits=at_answers(inputs, inputs["target_logprobs"]),
        teacher_labels=None,
        scale=1.0 if items > 0 else 1 / kept,
    )


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
