"""Approximate likelihood matching. Token t is predicted by the row before it; the first is BOS.

A matrix [token, chunk] for each side says which chunk a token is in. Ours follow from the bytes
at which tokens end, so ends are made up that give the same chunks.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from kd.losses import Extras, Setup
from kd.losses.setup import Vocabularies
from tests.golden.calls import IGNORED, Call, Hyper, Inputs, Unsupported, source

DIFFERENCES = {
    "binary_ce": "binary_kl",  # and the teacher's entropy
    "reverse_binary_kl": "reverse_binary_kl",
    "binary_kl_temp_limit": "binary_kl_limit",
    "abs": "absolute_log_ratio",
    "abs_exp": "absolute_probability",
    "joschu_k2": "squared_log_ratio",
    "joschu_k3": "exponential_log_ratio",
}
COUNTS = ("chunk_count", "token_count")
SIDES = ("student", "teacher")
CHUNK = 1000  # bytes; ends inside of a chunk differ by two from token to token


@source(("bminixhofer/tokenkit", "compute_alm_loss(chunk_kind=unconstrained)"))
def alm(inputs: Inputs, hyper: Hyper) -> Call:
    difference = hyper.pop("alm_diff_fn", "binary_ce")
    weights = hyper.pop("numerator", COUNTS[0])
    divisor = hyper.pop("denominator", COUNTS[0])
    mode = set(hyper.pop("alm_mode", "merge_by_space_prob+append_space").split("+"))
    merge = hyper.pop("tokenizer_pair_bias_threshold", 0.0)
    hyper.pop("epsilon", None)  # keeps their logarithms below 0
    if difference not in DIFFERENCES or weights not in COUNTS or divisor not in COUNTS:
        raise Unsupported(f"difference '{difference}' with weights '{weights}' / '{divisor}'")
    if hyper.pop("distill_chunk_sizes", [1]) != [1]:
        raise Unsupported("fixed numbers of chunks, joined")
    if not mode <= {"plain", "append_space", "merge_by_space_prob"} or mode == {
        "merge_by_space_prob"
    }:
        raise Unsupported(f"mode {sorted(mode)}")
    call = chunked(inputs)
    call.settings |= {
        "difference": DIFFERENCES[difference],
        "chunk_temperature": hyper.pop("binarization_temp", 100.0),
        "weighting": weights.removesuffix("_count"),
    }
    if "append_space" in mode:
        call.name = "chunk_likelihood_unbiased"
        call.settings["merge_below"] = merge if "merge_by_space_prob" in mode else 0.0
        masks = [texts(inputs[f"space_mask_{side}"]) for side in SIDES]
        call.settings["setup"] = Setup(vocabularies=Vocabularies(*masks))
    sequences = [list(row) for row in teacher_chunks(inputs, call.settings)]
    total = sum(counted(joined, divisor) for joined in sequences)
    call.scale = sum(chunk.parts for row in sequences for chunk in row) / total
    if difference == "binary_ce":
        call.offset = entropy(sequences, call.settings) / total
    return call


@dataclass
class Joined:
    """Chunks of the teacher that count as one."""

    log_prob: Tensor
    tokens: int = 0
    parts: int = 0


def chunked(inputs: Inputs) -> Call:
    """The plain loss, on tokens whose ends say which chunks they are in."""
    labels, ends = {}, {}
    alignments = {side: masked_alignment(inputs, side) for side in SIDES}
    filled = [alignment.any(1) for alignment in alignments.values()]
    if not torch.equal(*filled):
        raise ValueError("chunks with tokens on one side only: no ends of tokens give them")
    for place, side in enumerate(SIDES):
        # One more token after the last, which is in no chunk: it has a predecessor to follow.
        ids = torch.nn.functional.pad(inputs[f"{side}_input_ids"], (0, 1))[:, 1:]
        chunk = torch.nn.functional.pad(alignments[side], (0, 0, 0, 1))[:, 1:]
        labels[side], ends[side] = ids.clone(), torch.zeros_like(ids)
        for b in range(len(ids)):
            place_tokens(chunk[b], labels[side][b], ends[side][b], place)
    return Call(
        "chunk_likelihood",
        inputs["student_logits"],
        inputs["teacher_logits"],
        labels["student"],
        labels["teacher"],
        {"shift": False, "extras": Extras(ends["student"], ends["teacher"])},
    )


def place_tokens(chunk: Tensor, labels: Tensor, ends: Tensor, odd: int) -> None:
    """Ends [T] of tokens in chunks [T, C], whose last one on either side ends alike."""
    (inside,) = chunk.any(1).nonzero(as_tuple=True)
    if len(inside) and len(inside) != int(inside[-1] - inside[0]) + 1:
        raise ValueError("tokens between chunks: no ends of tokens give them")
    labels[: int(inside[0]) if len(inside) else 0] = IGNORED
    columns = chunk.any(0).nonzero()[:, 0].tolist()
    for rank, column in enumerate(columns):
        tokens = chunk[:, column].nonzero()[:, 0]
        ends[tokens] = CHUNK * rank + 2 * torch.arange(len(tokens)) + 1 + odd
        ends[tokens[-1]] = CHUNK * (rank + 1)
    after = ends[int(inside[-1]) + 1 if len(inside) else 0 :]
    after[:] = CHUNK * len(columns) + 2 * torch.arange(len(after)) + 1 + odd


def masked_alignment(inputs: Inputs, side: str) -> Tensor:
    """Which chunk each scored token is in, [B, T, C] bool."""
    return (inputs[f"alignment_{side}"] * inputs[f"loss_mask_{side}"][..., None]) > 0


def texts(starts: Tensor) -> list[str]:
    """Texts of tokens of which some begin a word."""
    return [" a" if start else "a" for start in starts.tolist()]


def teacher_chunks(inputs: Inputs, settings: Hyper) -> Iterator[Iterator[Joined]]:
    """What the teacher gives to each sequence's chunks, joined as the settings say."""
    log_p = inputs["teacher_logits"].log_softmax(-1)
    starts = (log_p.exp() * inputs["space_mask_teacher"]).sum(-1)
    alignment = masked_alignment(inputs, "teacher")
    rows = zip(log_p, starts, inputs["teacher_input_ids"], alignment, strict=True)
    return (joined_chunks(*row, settings.get("merge_below")) for row in rows)


def joined_chunks(
    log_p: Tensor, starts: Tensor, ids: Tensor, alignment: Tensor, merge_below: float | None
) -> Iterator[Joined]:
    current = Joined(torch.zeros(()))
    columns = alignment.any(0).nonzero()[:, 0].tolist()
    for column in columns:
        tokens = alignment[:, column].nonzero()[:, 0]
        current.log_prob = current.log_prob + log_p[tokens - 1, ids[tokens]].sum()
        current.tokens, current.parts = current.tokens + len(tokens), current.parts + 1
        start = starts[tokens[-1]]
        if merge_below is None or start >= merge_below or column == columns[-1]:
            if merge_below is not None:
                current.log_prob = current.log_prob + start.log()
            yield current
            current = Joined(torch.zeros(()))


def counted(sequence: list[Joined], divisor: str) -> int:
    """What they divide by. Joined chunks are joined once more, as if they were the old ones."""
    if divisor == "token_count":
        return sum(chunk.tokens for chunk in sequence)
    goal = [number for number, chunk in enumerate(sequence) for _ in range(chunk.parts)]
    return len(set(goal[: len(sequence)]))


def entropy(sequences: list[list[Joined]], settings: Hyper) -> Tensor:
    """The sum of the chunks' binary entropies, at the chunk temperature and with their weights."""
    chunks = [chunk for sequence in sequences for chunk in sequence]
    event = torch.stack([chunk.log_prob for chunk in chunks]) / settings["chunk_temperature"]
    entropies = -event.exp() * event - (-event.expm1()).xlogy(-event.expm1())
    if settings["weighting"] == "token":
        entropies = entropies * torch.tensor([chunk.tokens for chunk in chunks])
    return entropies.sum()
