"""Bounds of `kd.losses.kl`, as far as there are any: reverse KL has none."""

import torch
from torch import Tensor

from kd.losses.bounds.storage import log_errors, storage_error
from kd.losses.probabilities import common_log_probs, log_ratio
from kd.losses.teacher import TopKRows


def forward_kl(student: Tensor, teacher: TopKRows) -> Tensor:
    """At most d ln(p_K Q / (d q_min)) is missed, and to that comes what storing adds.

    p_K is the least stored probability, Q the student's mass on the dropped tokens and q_min its
    least probability among them. d alone would not do: q_min may be tiny. It is the error of a
    loss that is finite: tokens that the student excludes (columns that pad its vocabulary) are
    taken to be excluded by the teacher too, or else the whole loss is infinite, and no number
    bounds an error. It is infinite where the student excludes all dropped tokens.

    Proof. The merged outcome misses d KL(p' || q'), both sides renormalised over the dropped
    tokens: d times a mean, under p', of ln(p'_v / q'_v). There p'_v <= p_K / d, as tokens are
    dropped from the least likely one on, and q'_v >= q_min / Q where q'_v > 0; elsewhere p'_v is
    0, and adds nothing. Of what is stored, p_K e^(e_K) is
    no less than the true p_K, and d~ e^(-g) no more than the true d inside the logarithm, d~ no
    less than the one outside. For the second part, g = p ln(p / q) - p + q has the slope
    s = ln(p / q), with ds / d ln p = 1.
    """
    log_q, log_p = common_log_probs(student, teacher)
    stored = storage_error(teacher, log_ratio(log_p, log_q))
    padding = teacher.log_probs == -torch.inf
    ids = torch.where(padding, teacher.ids[:, :1], teacher.ids)
    others = student.scatter(-1, ids, torch.inf)
    others.masked_fill_(student == -torch.inf, torch.inf)
    least_q = others.min(dim=-1).values - student.logsumexp(dim=-1)
    last_p = teacher.log_probs.masked_fill(padding, torch.inf).min(dim=-1).values
    uncertain = torch.zeros_like(teacher.dropped)
    if teacher.log_errors is not None:
        uncertain = teacher.log_errors.to(uncertain) + teacher.dropped_error
    missed = last_p + uncertain + log_q[:, -1] - teacher.dropped.log() - least_q
    tail = torch.where(teacher.dropped > 0, teacher.dropped * missed.clamp(min=0), 0.0)
    tail.masked_fill_((teacher.dropped > 0) & (log_q[:, -1] == -torch.inf), torch.inf)
    return stored + tail.nan_to_num(nan=torch.inf, posinf=torch.inf)


def top1_cross_entropy(student: Tensor, teacher: TopKRows) -> Tensor:
    """At most p~_1 (e^(e_1) - 1) (-ln q_1): only the likeliest token is read, which is stored."""
    error = teacher.log_probs[:, 0].exp() * log_errors(teacher)[:, 0].expm1()
    return -error * torch.log_softmax(student, dim=-1).gather(-1, teacher.ids[:, :1])[:, 0]
