"""Losses on the order of the teacher's likeliest tokens, and not on their probabilities."""

import torch
from torch import Tensor
from torch.nn.functional import softplus

from kd.errors import LossError
from kd.losses.declaration import loss
from kd.losses.teacher import Teacher, TopKRows


@loss(
    "hinge_ranking",
    family="ranking",
    same_vocabulary=True,
    truncation="lower_bound",
    formula=r"\frac{2}{k (k - 1)} \sum_{i < j \le k} \max\left(0, m_{ij} - (q_i - q_j)\right)",
    source="Herbrich et al., Large Margin Rank Boundaries, 2000; as in DistillKit",
    ranges={"k": "[2, inf)", "margin": "[0, inf)"},
)
def hinge_ranking(
    student: Tensor, teacher: Teacher, *, k: int = 10, margin: float | None = None
) -> Tensor:
    """Hinge loss on each pair of the teacher's top k: the likelier token leads by a margin.

    The margin m is the teacher's own lead p_i - p_j, or a fixed difference of probabilities.
    Pairs that the teacher finds equally likely, and tokens it excludes, count 0. The sum is
    divided by the number of pairs in k, k (k - 1) / 2. It is not a divergence: without a
    margin of its own it is 0 whenever each lead is at least the teacher's, and with one it is
    positive for identical models whose leads are smaller.

    Top-k teacher: exact where k tokens are stored. Where fewer are, the pairs of the missing
    ones are; these count at least 0, so the value is a lower bound. By how much is not
    bounded by the dropped mass, since the student may give any probability to them.

    Raises:
        LossError: k is less than 2, or the margin is negative.
    """
    if margin is not None and margin < 0:
        raise LossError(f"margin is {margin}, but must not be negative, or be left to the teacher.")
    probs = student.softmax(dim=-1)
    ids, teacher_probs, preferred = _pairs(teacher, k)
    leads, teacher_leads = _differences(probs.gather(-1, ids)), _differences(teacher_probs)
    wanted = teacher_leads if margin is None else torch.full_like(teacher_leads, margin)
    return _mean((wanted - leads).relu(), preferred, k)


@loss(
    "logistic_ranking",
    family="ranking",
    same_vocabulary=True,
    truncation="lower_bound",
    formula=r"\frac{2}{k (k - 1)} \sum_{i < j \le k} \ln\left(1 + \frac{q_j}{q_i}\right)",
    source="Burges et al., Learning to Rank using Gradient Descent, 2005; as in DistillKit",
    ranges={"k": "[2, inf)"},
)
def logistic_ranking(student: Tensor, teacher: Teacher, *, k: int = 10) -> Tensor:
    """Logistic loss on each pair of the teacher's top k: the student is to rank them alike.

    Each pair counts -ln of the probability q_i / (q_i + q_j) that the student prefers the
    token that the teacher does. Pairs that the teacher finds equally likely, and tokens it
    excludes, count 0. The sum is divided by the number of pairs in k, k (k - 1) / 2. It is not
    a divergence: it is positive for identical models and falls on and on with larger leads.
    Two tokens that the student both excludes count as a draw, ln 2.

    Top-k teacher: exact where k tokens are stored. Where fewer are, the pairs of the missing
    ones are; these count at least 0, so the value is a lower bound, by an amount that is not
    bounded.

    Raises:
        LossError: k is less than 2.
    """
    ids, _, preferred = _pairs(teacher, k)
    logits = student.gather(-1, ids)
    draw = _both(logits == -torch.inf)
    leads = _differences(logits).masked_fill(draw | ~preferred, 0.0)
    return _mean(softplus(-leads), preferred, k)


def _pairs(teacher: Teacher, k: int) -> tuple[Tensor, Tensor, Tensor]:
    """The teacher's top K <= k tokens, likeliest first, and where it prefers i to a later j.

    Returns:
        ids [N, K], probabilities [N, K], and preferences [N, K (K - 1) / 2].
    """
    if k < 2:
        raise LossError(f"k is {k}, but only 2 tokens or more have an order.")
    if isinstance(teacher, TopKRows):
        ids, probs = teacher.ids[:, :k], teacher.log_probs[:, :k].exp()
    else:
        top = teacher.softmax(dim=-1).topk(min(k, teacher.shape[-1]), dim=-1)
        ids, probs = top.indices, top.values
    return ids, probs, (_differences(probs) > 0) & _both(probs > 0)


def _differences(values: Tensor) -> Tensor:
    """Each entry of [N, K] minus each later one, [N, K (K - 1) / 2]."""
    first, second = _order(values)
    return values[:, first] - values[:, second]


def _both(flags: Tensor) -> Tensor:
    """Whether both entries of each pair are set, [N, K (K - 1) / 2]."""
    first, second = _order(flags)
    return flags[:, first] & flags[:, second]


def _order(values: Tensor) -> tuple[Tensor, Tensor]:
    width = values.shape[-1]
    first, second = torch.triu_indices(width, width, offset=1, device=values.device)
    return first, second


def _mean(terms: Tensor, counted: Tensor, k: int) -> Tensor:
    """Sum of the counted terms over the number of pairs in k, which no row can exceed.

    A constant divisor: dividing by each row's own number of pairs would let one pair of a
    confident teacher count as much as all pairs of an uncertain one.
    """
    return terms.masked_fill(~counted, 0.0).sum(dim=-1) / (k * (k - 1) / 2)
