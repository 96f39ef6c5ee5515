"""Multi-level optimal transport as its authors' code computes it, before and since 2026-02."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from kd.errors import LossError
from kd.losses.rows import AnswerRows
from kd.losses.sequence_transport import Weights, teacher_log_probs, transport_shares
from kd.losses.teacher import Teacher, TopKRows

ITERATIONS = 10
TEMPERATURE = 2.0  # of the second softmax, in the Sinkhorn distance
SINKHORN_SCALE = 0.001
STABILITY = 1e-4  # added to standard deviations


@dataclass(frozen=True)
class Release:
    """In what the releases differ, and what their caller may set."""

    sorts_rows: bool  # every row by itself, instead of columns by their sum over the batch
    student_temperature: float
    teacher_temperature: float


def released(answers: AnswerRows, weights: Weights, release: Release) -> Tensor:
    """The value of a batch, a scalar.

    Raises:
        LossError: the teacher's distributions are truncated.
    """
    student = _probabilities(answers.student, release.student_temperature)
    teacher = _probabilities(_complete(answers.teacher), release.teacher_temperature)
    student, teacher = (
        _leading_columns(side, weights.top_k, release.sorts_rows) for side in (student, teacher)
    )
    width = max(student.shape[-1], teacher.shape[-1])
    length = int(torch.maximum(answers.student_lengths, answers.teacher_lengths).max())
    own = _padded(student, answers.student_lengths, length, width)
    other = _padded(teacher, answers.teacher_lengths, length, width)
    paired = torch.minimum(answers.student_lengths, answers.teacher_lengths)
    value = _absolute_differences(own, other, paired)
    # The student is the target and the teacher what is scored: as in the code.
    cross_entropy = -(own.softmax(dim=-1) * other.log_softmax(dim=-1)).sum(dim=-1).mean()
    return value + weights.log * cross_entropy + weights.sinkhorn * _sinkhorn(own, other)


def _absolute_differences(student: Tensor, teacher: Tensor, paired: Tensor) -> Tensor:
    """Mean over sequences of the mean over their paired rows."""
    rows = torch.arange(student.shape[1], device=student.device) < paired[:, None]
    differences = (student - teacher).abs().sum(dim=-1).where(rows, 0.0).sum(dim=-1)
    return (differences / paired.clamp(min=1)).sum() / (paired > 0).sum()


def _sinkhorn(student: Tensor, teacher: Tensor) -> Tensor:
    rows = zip(*((side / TEMPERATURE).softmax(-1) for side in (teacher, student)), strict=True)
    distances = [transport_shares(other, own, ITERATIONS).sum() for other, own in rows]
    return SINKHORN_SCALE * torch.stack(distances).sum()


def _complete(teacher: Teacher) -> Tensor:
    """The teacher's logits, or log-probabilities, of all tokens that are possible at all."""
    if not isinstance(teacher, TopKRows):
        return teacher
    truncated = int((teacher.dropped > 0).sum())
    if truncated:
        raise LossError(
            f"the variants 'head' and 'pre202602' divide logits by their standard deviation, but "
            f"{truncated} of {len(teacher.dropped)} distributions are truncated: use 'variant: "
            "paper', or extract with 'logits: {epsilon: 0}' and no cap."
        )
    return teacher_log_probs(teacher)


def _probabilities(logits: Tensor, temperature: float) -> Tensor:
    """Softmax of logits [M, V] in units of their standard deviation; -inf counts in neither."""
    logits = logits[:, (logits != -torch.inf).any(dim=0)]  # columns that pad the vocabulary
    possible = logits != -torch.inf
    finite = logits.where(possible, 0.0)
    count = possible.sum(dim=-1, keepdim=True)
    centred = (finite - finite.sum(dim=-1, keepdim=True) / count).where(possible, 0.0)
    variance = centred.square().sum(dim=-1, keepdim=True) / (count - 1).clamp(min=1)
    varied = variance > 0  # the root of 0 has no gradient
    deviation = variance.where(varied, 1.0).sqrt().where(varied, 0.0)
    standardised = finite / (deviation + STABILITY) / temperature
    return standardised.where(possible, -torch.inf).softmax(dim=-1)


def _leading_columns(probs: Tensor, top_k: int, sorts_rows: bool) -> Tensor:
    """The `top_k` first columns of probs [M, V], or all, by rank in each row or in the sum."""
    size = min(top_k, probs.shape[-1])
    if sorts_rows:
        return probs.topk(size).values
    return probs[:, probs.sum(dim=0).topk(size).indices]


def _padded(rows: Tensor, lengths: Tensor, length: int, width: int) -> Tensor:
    """Rows [M, K] of B sequences as [B, length, width], filled up with zeros."""
    batch = pad_sequence(list(torch.split(rows, lengths.tolist())), batch_first=True)
    missing = (0, width - batch.shape[2], 0, length - batch.shape[1])
    return torch.nn.functional.pad(batch, missing)
