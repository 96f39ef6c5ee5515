"""From padded batches to the rows that a loss compares: labels, shift, alignment.

Rows are picked before anything is computed on them, so no softmax is ever taken over a
prompt or over padding.
"""

from dataclasses import dataclass

from torch import Tensor

from kd.alignment import Aligner, Alignment, AnswerTokens, truncate
from kd.errors import LossError
from kd.losses.teacher import Teacher, TeacherLogits

IGNORED = -100  # Hugging Face's label of positions that are not scored


@dataclass(frozen=True)
class AlignedRows:
    """What losses may ask for: N aligned answer tokens. Logits come at the loss's temperature."""

    student: Tensor  # [N, Vs] logits
    teacher: Teacher | None  # [N, Vt] logits, or top-k; None for losses that need no teacher
    targets: Tensor  # [N] int64: the student's own next token
    sequence: Tensor  # [N] int64: which sequence of the batch each row is from


@dataclass(frozen=True)
class Answers:
    """Where the logits of a batch predict answer tokens: M positions, ordered by sequence."""

    sequence: Tensor  # [M] int64
    position: Tensor  # [M] int64: index of the predicting row of logits
    targets: Tensor  # [M] int64: the token that it should predict
    lengths: Tensor  # [B] int64

    def index(self, sequence: Tensor, token: Tensor) -> Tensor:
        """Where among the M positions the given answer tokens of the given sequences stand."""
        first = self.lengths.cumsum(0) - self.lengths  # [B]
        return first[sequence] + token


def find_answers(labels: Tensor, shift: bool) -> Answers:
    """Locate the answer tokens of `labels` [B, T], -100 where nothing is scored.

    With `shift` (decoders) logits[t - 1] predicts labels[t], and a label at t = 0 has no
    predictor; without it (encoder-decoders) logits[t] predicts labels[t].
    """
    predicted = labels[:, 1:] if shift else labels
    scored = predicted != IGNORED
    sequence, position = scored.nonzero(as_tuple=True)
    return Answers(
        sequence=sequence,
        position=position,
        targets=predicted[sequence, position],
        lengths=scored.sum(dim=1),
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
    def vocabulary(self) -> int:
        """Tokens of the teacher's vocabulary."""
        return self.logits.shape[-1]

    def rows(self, pairs: Alignment) -> Tensor:
        """Logits [N, V] of the teacher's tokens in `pairs`; no gradient flows into them."""
        chosen = self.answers.index(pairs.sequence, pairs.teacher)
        return self.logits.detach()[pairs.sequence, self.answers.position[chosen]]


TeacherAnswers = DenseTeacher | TeacherLogits


def find_teacher_answers(
    logits: Tensor | TeacherLogits | None, labels: Tensor | None, shift: bool
) -> TeacherAnswers:
    """Locate the teacher's answer tokens; `labels` and `shift` concern dense logits only.

    Raises:
        LossError: there are no logits, or dense ones come without labels that fit them.
    """
    if isinstance(logits, TeacherLogits):
        return logits
    if logits is None or labels is None:
        missing = "teacher_logits" if logits is None else "teacher_labels"
        raise LossError(f"'{missing}' is missing: this loss compares with the teacher's answer.")
    check_shapes("teacher", logits, labels)
    return DenseTeacher(logits, find_answers(labels, shift))


def pair_answers(student: Answers, teacher: TeacherAnswers | None, aligner: Aligner) -> Alignment:
    """Align both sides' answer tokens; without a teacher, all of the student's count.

    Raises:
        LossError: student and teacher do not hold the same number of sequences.
    """
    tokens = AnswerTokens(student.lengths)
    if teacher is None:
        return truncate(tokens, tokens)
    if len(student.lengths) != len(teacher.lengths):
        raise LossError(
            f"the student's batch holds {len(student.lengths)} sequences and the teacher's "
            f"{len(teacher.lengths)}: pass the same rows in the same order."
        )
    return aligner(tokens, AnswerTokens(teacher.lengths))


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
