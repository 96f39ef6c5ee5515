"""Approximate likelihood matching. Token t is predicted by the row before it; the first is BOS.

A matrix [token, chunk] per side says which chunk a token is in. Here chunks follow from the
bytes at which tokens end, so ends are made up that give the same chunks.
"""

from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from kd.losses import Extras, Setup
from kd.losses.setup import Vocabularies
from tests.golden.calls import IGNORED, Call, Hyper, Inputs, Unsupported, source

DIFFERENCES = {
    "binary_ce": "binary_kl",
    "reverse_binary_kl": "reverse_binary_kl",
    "binary_kl_temp_limit": "binary_kl_limit",
    "abs": "absolute_log_ratio",
    "abs_exp": "absolute_probability",
    "joschu_k2": "squared_log_ratio",
    "joschu_k3": "exponential_log_ratio",
}
FURTHER = 1000  # between the ends of chunks, and so more than tokens in one


@source(("bminixhofer/tokenkit", "compute_alm_loss(chunk_kind=unconstrained)"))
def alm(inputs: Inputs, hyper: Hyper) -> Call:
    difference = hyper.pop("alm_diff_fn")
    if difference not in DIFFERENCES:
        raise Unsupported(f"difference '{difference}'")
    if hyper.pop("distill_chunk_sizes", [1]) != [1]:
        raise Unsupported("several fixed numbers of chunks joined")
    hyper.pop("epsilon", None)  # keeps logarithms below 0; ours are exact
    numerator, denominator = (
        hyper.pop(name, "chunk_count") for name in ("numerator", "denominator")
    )
    if numerator not in ("chunk_count", "token_count"):
        raise Unsupported(f"weights '{numerator}'")
    temperature = hyper.pop("binarization_temp", 100.0)
    settings = {
        "difference": DIFFERENCES[difference],
        "chunk_temperature": temperature,
        "weighting": numerator.removesuffix("_count"),
    }
    name = "chunk_likelihood"
    mode = set(hyper.pop("alm_mode").split("+"))
    threshold = hyper.pop("tokenizer_pair_bias_threshold", 0.0)
    if mode == {"merge_by_space_prob"}:
        raise Unsupported("chunks joined by a probability that is not compared")
    if "append_space" in mode:
        name = "chunk_likelihood_unbiased"
        settings["merge_below"] = threshold if "merge_by_space_prob" in mode else 0.0
        settings["setup"] = Setup(
            vocabularies=Vocabularies(
                *(texts(inputs[f"space_mask_{side}"]) for side in ("student", "teacher"))
            )
        )
    call = chunked_call(inputs, name, settings)
    found = joined(inputs, mode, threshold)
    counts = [chunk.tokens if denominator == "token_count" else 1 for chunk in found]
    rows = sum(int(row.any(0).sum()) for row in inputs["alignment_teacher"])
    call.scale = rows / (sum(counts) if "merge_by_space_prob" not in mode else _merged_twice())
    return call
