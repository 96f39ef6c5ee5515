"""What losses are given of a batch: aligned rows, computed when they are asked for."""

from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from kd.alignment import Aligner, Alignment, AnswerTokens, truncate
from kd.errors import LossError
from kd.losses.answers import Answers, DenseTeacher, TeacherAnswers, target_log_probs
from kd.losses.features import AlignedFeatures, Features
from kd.losses.selection import select_rows
from kd.losses.spans import SpanLogProbs, Spans
from kd.losses.teacher import Teacher, TeacherLogits, TopKRows


@dataclass(frozen=True)
class Extras:
    """What only some losses ask for, beside logits and labels.

    Attributes:
        student_ends: [B, Ts], index as `student_labels`: the byte of the answer's text (UTF-8)
            at which each of the student's tokens ends. For alignments by text.
        teacher_ends: [B, Tt], the same for dense teacher logits.
        student_responses: [B], whether the student wrote the sequence.
        features: hidden states and attentions of both models.
    """

    student_ends: Tensor | None = None
    teacher_ends: Tensor | None = None
    student_responses: Tensor | None = None
    features: Features | None = None


@dataclass(frozen=True)
class Following:
    """The rows that predict what follows the aligned spans, at the loss's temperatures."""

    student: Tensor  # [N, Vs] logits
    teacher: Teacher  # [N, Vt] logits, or top-k
    known: Tensor  # [N] bool: an answer token follows on both sides; other rows mean nothing


@dataclass(frozen=True)
class AnswerRows:
    """All answer rows of a batch, sequences end to end, whatever the other side's length."""

    student: Tensor  # [Ms, Vs] logits
    teacher: Teacher  # [Mt, Vt] logits, or top-k
    student_lengths: Tensor  # [B] int64
    teacher_lengths: Tensor  # [B] int64
    student_tokens: Tensor  # [Ms] int64: what each row should predict
    teacher_answers: TeacherAnswers

    @property
    def teacher_tokens(self) -> Tensor:
        """What each of the teacher's rows should predict, [Mt].

        Raises:
            LossError: the teacher's logits are stored ones without their tokens.
        """
        return self.teacher_answers.own_tokens()


@dataclass(frozen=True)
class AlignedBatch:
    """A batch cut down to N aligned answer tokens. Its properties are what losses may ask for.

    Logits come at the loss's temperatures, in `dtype`. See `kd.losses.needs.BATCH`.
    """

    logits: Tensor  # [B, Ts, Vs]
    own: Answers
    other: TeacherAnswers | None
    pairs: Alignment
    extras: Extras
    temperature: float
    teacher_temperature: float
    alone: bool = False  # a part whose rows are evaluated without the others
    rows: Tensor | None = None  # [N, Vs] of the logits, if all of them are never computed

    @property
    def dtype(self) -> torch.dtype:
        """Losses compute in float32, or in float64 if the student's logits are."""
        return torch.float64 if self.logits.dtype == torch.float64 else torch.float32

    @property
    def sequence(self) -> Tensor:
        """Which sequence of the batch each row is from, [N]."""
        return self.pairs.sequence

    @cached_property
    def places(self) -> tuple[Tensor, Tensor]:
        """Sequence [N] and position [N] of the student's rows in its logits."""
        chosen = self.own.index(self.sequence, self.pairs.student)
        return self.sequence, self.own.position[chosen]

    def part(self, rows: slice | Tensor) -> "AlignedBatch":
        """The batch cut down to some of its aligned rows."""
        pairs = self.pairs
        chosen = {name: value[rows] for name, value in vars(pairs).items()}
        return replace(self, pairs=Alignment(**chosen), alone=True)

    @property
    def temperatures(self) -> tuple[float, float]:
        """Those of the student's logits and of the teacher's."""
        return self.temperature, self.teacher_temperature

    @cached_property
    def student(self) -> Tensor:
        """The student's logits, [N, Vs]."""
        rows = select_rows(self.logits, *self.places) if self.rows is None else self.rows
        return _temper(rows.to(self.dtype), self.temperature)

    @cached_property
    def teacher(self) -> Teacher:
        """The teacher's logits, [N, Vt], or top-k."""
        return self._soften(self._teacher.rows(self.pairs))

    @cached_property
    def targets(self) -> Tensor:
        """The student's own next tokens, [N]."""
        return self.own.targets[self.own.index(self.sequence, self.pairs.student)]

    @cached_property
    def teacher_targets(self) -> Tensor:
        """The teacher's own next tokens, [N]."""
        return self._teacher.own_tokens()[_flat(self._teacher, self.sequence, self.pairs.teacher)]

    @cached_property
    def student_responses(self) -> Tensor:
        """Whether the student wrote the text of each row, [N]; by default the teacher did."""
        written = self.extras.student_responses
        if written is None:
            return torch.zeros_like(self.sequence, dtype=torch.bool)
        return written[self.sequence]

    @cached_property
    def spans(self) -> Spans:
        """Log-probabilities of the spans' own tokens; nothing is computed before it is read."""
        pairs = self.pairs
        own = self.own.index(self.sequence, pairs.student_first)
        other = _flat(self._teacher, self.sequence, pairs.teacher_first)
        more, more_other = pairs.student - pairs.student_first, pairs.teacher - pairs.teacher_first
        return Spans(
            student=SpanLogProbs(self._own_log_probs, own, more, self.dtype),
            teacher=SpanLogProbs(
                self._teacher_log_probs,
                other,
                more_other,
                self.dtype,
                self._teacher_errors if isinstance(self.other, TeacherLogits) else None,
            ),
        )

    def _own_log_probs(self, chosen: Tensor) -> Tensor:
        if self.alone:  # a gradient through these logits would be lost
            raise LossError('the loss reads the student at other rows: declare rows="batch".')
        rows = select_rows(self.logits, self.own.sequence[chosen], self.own.position[chosen])
        return target_log_probs(rows.to(self.dtype), self.own.targets[chosen], self.temperature)

    def _teacher_log_probs(self, chosen: Tensor) -> Tensor:
        return self._teacher.own_log_probs(chosen, self.teacher_temperature).to(self.dtype)

    def _teacher_errors(self, chosen: Tensor) -> Tensor:
        assert isinstance(self.other, TeacherLogits)
        return self.other.own_errors(chosen, self.teacher_temperature).to(self.dtype)

    @cached_property
    def following(self) -> Following:
        """The rows that predict what follows the spans."""
        known = (self.pairs.student + 1 < self.own.lengths[self.sequence]) & (
            self.pairs.teacher + 1 < self._teacher.lengths[self.sequence]
        )
        # Where nothing follows, the span's own last row stands in: there always is one.
        after = replace(
            self.pairs, student=self.pairs.student + known, teacher=self.pairs.teacher + known
        )
        shifted = replace(self, pairs=after)
        return Following(shifted.student, shifted.teacher, known)

    @cached_property
    def answers_of_student(self) -> Tensor:
        """The student's logits on all of its answer tokens, [M, Vs], paired or not."""
        rows = select_rows(self.logits, self.own.sequence, self.own.position)
        return _temper(rows.to(self.dtype), self.temperature)

    @cached_property
    def answers(self) -> AnswerRows:
        """All answer rows of both sides."""
        return AnswerRows(
            student=self.answers_of_student,
            teacher=self._soften(self._teacher.all_rows()),
            student_lengths=self.own.lengths,
            teacher_lengths=self._teacher.lengths,
            student_tokens=self.own.targets,
            teacher_answers=self._teacher,
        )

    @cached_property
    def features(self) -> AlignedFeatures:
        """Hidden states and attentions, with the pairs at which they are to be compared.

        Raises:
            LossError: they were not given, or the teacher's logits are stored ones.
        """
        if self.extras.features is None or not isinstance(self.other, DenseTeacher):
            raise LossError(
                "this loss reads hidden states or attentions: pass the teacher's dense logits "
                "and Extras(features=...)."
            )
        return AlignedFeatures(self.extras.features, self.own, self.other.answers, self.pairs)

    @property
    def _teacher(self) -> TeacherAnswers:
        assert self.other is not None, "the loss declares a need of the teacher"
        return self.other

    def _soften(self, teacher: Teacher) -> Teacher:
        if isinstance(teacher, TopKRows):
            return teacher.cast(self.dtype).tempered(self.teacher_temperature)
        return _temper(teacher.to(self.dtype), self.teacher_temperature)


def pair_answers(student: Answers, teacher: TeacherAnswers | None, aligner: Aligner) -> Alignment:
    """Align both sides' answer tokens; without a teacher, all of the student's count.

    Raises:
        LossError: student and teacher do not hold the same number of sequences.
    """
    if teacher is None:
        tokens = AnswerTokens(student.lengths)
        return truncate(tokens, tokens)
    if len(student.lengths) != len(teacher.lengths):
        raise LossError(
            f"the student's batch holds {len(student.lengths)} sequences and the teacher's "
            f"{len(teacher.lengths)}: pass the same rows in the same order."
        )
    return aligner(
        AnswerTokens(student.lengths, student.ends), AnswerTokens(teacher.lengths, teacher.ends)
    )


def _flat(teacher: TeacherAnswers, sequence: Tensor, token: Tensor) -> Tensor:
    lengths = teacher.lengths
    return (lengths.cumsum(0) - lengths)[sequence] + token


def _temper(logits: Tensor, temperature: float) -> Tensor:
    return logits if temperature == 1.0 else logits / temperature
