"""Optimal transport between next-token distributions of different vocabularies."""

import torch
from torch import Tensor

from kd.losses.declaration import loss
from kd.losses.spans import Spans
from kd.losses.teacher import Teacher, TopKRows


@loss(
    "uld",
    family="optimal transport",
    same_vocabulary=False,
    truncation="certified",
    formula=r"\sum_r |p_{(r)} - q_{(r)}|",
    source="Boizard et al., arXiv 2402.12030, eq. 5; spans: GOLD, Hugging Face TRL",
    alignments=("truncate", "spans"),
    kernel="kd.losses.kernels.uld",
    bound="kd.losses.bounds.transport",
    reads_ids=False,
)
def uld(student: Tensor, teacher: Teacher, spans: Spans) -> Tensor:
    """Universal logit distillation: L1 distance of the probabilities, each side sorted.

    ULD = sum over ranks r of |p_r - q_r|, p the teacher's and q the student's probabilities
    in descending order, the shorter list padded with zeros. Between 0 and 2, without a factor
    1/2. It compares shapes only: a permutation of either vocabulary changes nothing.

    Under `spans` both rows are chained (`SpanLogProbs.chained`): the last token's probabilities
    times those of the tokens before it. Their sums P of p and Q of q are then at most 1; they
    are 1 for single tokens. Where q is above p at every rank, or below, only |P - Q| is left.

    Top-k teacher: with the first K values of p and the sum d of the others,

        ULD~ = 2 * sum over r <= K of max(p_r - q_r, 0) + d + Q - P,     |ULD - ULD~| <= d.

    Proof. |x| = 2 * max(x, 0) - x, and p - q sums up to P - Q, so ULD = 2 * sum over all r of
    max(p_r - q_r, 0) + Q - P. The ranks beyond K contribute 2 * sum of max(p_r - q_r, 0),
    which lies between 0 and 2 * sum of p_r = 2d, since q_r >= 0. ULD~ puts d in its place, the
    middle of that interval. d is the dropped mass times P, and so at most the dropped mass.
    """
    student_probs = spans.student.chained(student.softmax(dim=-1))
    if isinstance(teacher, TopKRows):
        stored = spans.teacher.chained(teacher.log_probs.exp())  # descending, 0 on padding
        lost = teacher.dropped * spans.teacher.mass
        known = 2 * leading_excess(stored, student_probs)
        return known + lost + (spans.student.mass - spans.teacher.mass)
    return sorted_l1(student_probs, spans.teacher.chained(teacher.softmax(dim=-1)))


def sorted_l1(first: Tensor, second: Tensor) -> Tensor:
    """L1 distance [N] of rows [N, V1] and [N, V2] of values >= 0, each sorted, 0 where missing."""
    one, other = (side.sort(dim=-1, descending=True).values for side in (first, second))
    return (_widen(one, other) - _widen(other, one)).abs().sum(dim=-1)


def leading_excess(teacher: Tensor, student: Tensor) -> Tensor:
    """Sum [N] over ranks r <= K of max(p_r - q_r, 0): p [N, K] descending, q [N, V] unsorted."""
    leading = student.topk(min(teacher.shape[-1], student.shape[-1])).values
    return (teacher - _widen(leading, teacher)).relu().sum(dim=-1)


def _widen(values: Tensor, other: Tensor) -> Tensor:
    """Pad the last dimension of `values` with zeros up to that of `other`."""
    missing = max(other.shape[-1] - values.shape[-1], 0)
    return torch.nn.functional.pad(values, (0, missing))
