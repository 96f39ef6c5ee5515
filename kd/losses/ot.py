"""Optimal transport between next-token distributions of different vocabularies."""

import torch
from torch import Tensor

from kd.losses.declaration import loss
from kd.losses.teacher import Teacher, TopKRows


@loss(
    "uld",
    family="optimal transport",
    same_vocabulary=False,
    truncation="certified",
    formula=r"\sum_r |p_{(r)} - q_{(r)}|",
    source="Boizard et al., arXiv 2402.12030, eq. 5",
)
def uld(student: Tensor, teacher: Teacher) -> Tensor:
    """Universal logit distillation: L1 distance of the probabilities, each side sorted.

    ULD = sum over ranks r of |p_r - q_r|, p the teacher's and q the student's probabilities
    in descending order, the shorter list padded with zeros. Between 0 and 2, without a factor
    1/2. It compares shapes only: a permutation of either vocabulary changes nothing.

    Top-k teacher: with the first K values of p and the dropped mass d,

        ULD~ = 2 * sum over r <= K of max(p_r - q_r, 0) + d,      |ULD - ULD~| <= d.

    Proof. p and q both sum to 1, so positive and negative parts of p - q have the same sum,
    and ULD = 2 * sum over all r of max(p_r - q_r, 0). The ranks beyond K contribute
    2 * sum of max(p_r - q_r, 0), which lies between 0 and 2 * sum of p_r = 2d, since
    q_r >= 0. ULD~ puts d in its place, the middle of that interval.
    """
    student_probs = student.softmax(dim=-1)
    if isinstance(teacher, TopKRows):
        stored = teacher.log_probs.exp()  # [N, K], descending, 0 on padding
        leading = student_probs.topk(min(stored.shape[-1], student_probs.shape[-1])).values
        return 2 * (stored - _widen(leading, stored)).relu().sum(dim=-1) + teacher.dropped
    sorted_student = student_probs.sort(dim=-1, descending=True).values
    sorted_teacher = teacher.softmax(dim=-1).sort(dim=-1, descending=True).values
    difference = _widen(sorted_student, sorted_teacher) - _widen(sorted_teacher, sorted_student)
    return difference.abs().sum(dim=-1)


def _widen(values: Tensor, other: Tensor) -> Tensor:
    """Pad the last dimension of `values` with zeros up to that of `other`."""
    missing = max(other.shape[-1] - values.shape[-1], 0)
    return torch.nn.functional.pad(values, (0, missing))
