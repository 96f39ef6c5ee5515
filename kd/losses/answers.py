"""Where answer tokens stand in padded batches: labels, shift, and both kinds of teacher.

Rows are picked before anything is computed on them, so no softmax is ever taken over a
prompt or over padding.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from kd.alignment import Alignment
from kd.errors import LossError
from kd.losses.selection import select_rows
from kd.losses.teacher import TeacherLogits

IGNORED = -100  # Hugging Face's label of positions that are not scored


@dataclass(frozen=True)
class Answers:
    """Where the logits of a batch predict answer tokens: M positions, ordered by sequence."""

    sequence: Tensor  # [M] int64
    position: Tensor  # [M] int64: index of the predicting row of logits
    targets: Tensor  # [M] int64: the token that it should predict
    lengths: Tensor  # [B] int64
    ends: Tensor | None  # [M] int64: byte of the answer's text at which the target ends

    def index(self, sequence: Tensor, token: Tensor) -> Tensor:
        """Where among the M positions the given answer tokens of the given sequences stand."""
        return first_of_each(self.lengths)[sequence] + token


def first_of_each(lengths: Tensor) -> Tensor:
    """Index of each sequence's first token when sequences of `lengths` [B] stand end to end."""
    return lengths.cumsum(0) - lengths


def find_answers(labels: Tensor, shift: bool, ends: Tensor | None = None) -> Answers:
    """Locate the answer tokens of `labels` [B, T], -100 where nothing is scored.

    With `shift` (decoders) logits[t - 1] predicts labels[t], and a label at t = 0 has no
    predictor; without it (encoder-decoders) logits[t] predicts labels[t]. `ends` [B, T] has
    the same index as `labels`.
    """
    predicted = labels[:, 1:] if shift else labels
    scored = predicted != IGNORED
    sequence, position = scored.nonzero(as_tuple=True)
    return Answers(
        sequence=sequence,
        position=position,
        targets=predicted[sequence, position],
        lengths=scored.sum(dim=1),
        ends=None if ends is None else ends[sequence, position + int(shift)],
    )


@dataclass(frozen=True)
class DenseTeacher:
    """Dense logits of a teacher with their answer tokens; `TeacherLogits` is its counterpart."""

    logits: Tensor  # [B, T, V]
    answers: Answers

    @property
    def lengths(self) -> Tensor:
        """Answer tokens of each sequence, [B]."""
        return self.answers.lengths

    @property
    def ends(self) -> Tensor | None:
        """Byte of the answer's text at which each answer token ends, [M]."""
        return self.answers.ends

    @property
    def vocabulary(self) -> int:
        """Tokens of the teacher's vocabulary."""
        return self.logits.shape[-1]

    def own_tokens(self) -> Tensor:
        """The teacher's own answer tokens, [M]."""
        return self.answers.targets

    def rows(self, pairs: Alignment) -> Tensor:
        """Logits [N, V] of the last tokens of `pairs`; no gradient flows into them."""
        chosen = self.answers.index(pairs.sequence, pairs.teacher)
        return select_rows(self.logits.detach(), pairs.sequence, self.answers.position[chosen])

    def all_rows(self) -> Tensor:
        """Logits [M, V] of all answer tokens."""
        return select_rows(self.logits.detach(), self.answers.sequence, self.answers.position)

    def own_log_probs(self, chosen: Tensor, temperature: float) -> Tensor:
        """Log-probabilities [C] of the own answer tokens `chosen` [C], at `temperature`."""
        found = self.answers
        rows = select_rows(self.logits.detach(), found.sequence[chosen], found.position[chosen])
        return target_log_probs(rows, found.targets[chosen], temperature)


def target_log_probs(rows: Tensor, targets: Tensor, temperature: float) -> Tensor:
    """Log-probabilities [C] of `targets` [C] under logits [C, V], at `temperature`."""
    rows = rows.to(torch.promote_types(rows.dtype, torch.float32))  # bfloat16 would round
    return (rows / temperature).log_softmax(dim=-1).gather(-1, targets[:, None])[:, 0]


TeacherAnswers = DenseTeacher | TeacherLogits


def find_teacher_answers(
    logits: Tensor | TeacherLogits | None,
    labels: Tensor | None,
    shift: bool,
    ends: Tensor | None = None,
) -> TeacherAnswers:
    """Locate the teacher's answer tokens; the other arguments concern dense logits only.

    Raises:
        LossError: there are no logits, or dense ones come without labels that fit them.
    """
    if isinstance(logits, TeacherLogits):
        return logits
    if logits is None or labels is None:
        missing = "teacher_logits" if logits is None else "teacher_labels"
        raise LossError(f"'{missing}' is missing: this loss compares with the teacher's answer.")
    check_shapes("teacher", logits, labels)
    return DenseTeacher(logits, find_answers(labels, shift, ends))


def check_shapes(side: str, logits: Tensor, labels: Tensor) -> None:
    """Refuse logits [B, T, V] and labels [B, T] that do not fit each other.

    Raises:
        LossError: the shapes differ.
    """
    if logits.ndim != 3 or logits.shape[:2] != labels.shape:
        raise LossError(
            f"{side}_logits has shape {tuple(logits.shape)} and {side}_labels "
            f"{tuple(labels.shape)}: they must be [batch, length, vocabulary] and [batch, length]."
        )
