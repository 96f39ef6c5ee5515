"""Log-space arithmetic that survives impossible tokens (probability 0, logit -inf).

Vocabularies are often padded with columns of logit -inf. Every function here gives finite
values *and gradients* on such columns wherever the mathematics does.
"""

import torch
from torch import Tensor

from kd.losses.teacher import Teacher, TopKRows


def common_log_probs(student: Tensor, teacher: Teacher) -> tuple[Tensor, Tensor]:
    """Log-probabilities of student and teacher over the same M outcomes, each [N, M].

    Dense teacher logits [N, V]: the outcomes are the V tokens. Top-k rows: the K stored
    tokens and, as one further outcome, "any other token". Merging outcomes never increases
    an f-divergence (data processing inequality), so a divergence of the second kind is a
    lower bound of the full one, and equal to it where nothing was dropped.
    """
    if isinstance(teacher, TopKRows):
        return _student_buckets(student, teacher), _teacher_buckets(teacher)
    return torch.log_softmax(student, dim=-1), torch.log_softmax(teacher, dim=-1)


def expectation(log_probs: Tensor, values: Tensor) -> Tensor:
    """Mean of `values` [N, M] under `log_probs` [N, M], as [N]; impossible outcomes count 0.

    Their values may be infinite or NaN, as log(0) - log(0) is: they are replaced before the
    product, since 0 * NaN would be NaN and its gradient too.
    """
    probs = log_probs.exp()
    return (probs * values.masked_fill(probs == 0, 0.0)).sum(dim=-1)


def log_ratio(log_p: Tensor, log_q: Tensor) -> Tensor:
    """ln(p / q) of log-probabilities [N, M], as [N, M]; 0 where both exclude the outcome."""
    impossible = (log_p == -torch.inf) & (log_q == -torch.inf)
    return log_p.masked_fill(impossible, 0.0) - log_q.masked_fill(impossible, 0.0)


def _teacher_buckets(teacher: TopKRows) -> Tensor:
    return torch.cat([teacher.log_probs, teacher.dropped.log()[:, None]], dim=-1)


def _student_buckets(student: Tensor, teacher: TopKRows) -> Tensor:
    padding = teacher.log_probs == -torch.inf
    # Padding points at the row's first stored token, so that it hides no other token below.
    ids = torch.where(padding, teacher.ids[:, :1], teacher.ids)
    total = student.logsumexp(dim=-1, keepdim=True)  # [N, 1]
    stored = (student.gather(-1, ids) - total).masked_fill(padding, -torch.inf)
    # A sum over the other tokens themselves: 1 - sum(stored) would cancel where it matters.
    others = log_sum_exp(student.scatter(-1, ids, -torch.inf)) - total
    return torch.cat([stored, others], dim=-1)


def log_sum_exp(logits: Tensor) -> Tensor:
    """log(sum(exp)) of rows [N, V], as [N, 1]; torch's own gradient is NaN if all are -inf."""
    impossible = (logits == -torch.inf).all(dim=-1, keepdim=True)
    total = logits.masked_fill(impossible, 0.0).logsumexp(dim=-1, keepdim=True)
    return total.masked_fill(impossible, -torch.inf)
