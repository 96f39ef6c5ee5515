"""`distillation_loss`: the convention that all losses share, around the one that is asked for.

Labels are Hugging Face's (same index as the input ids, -100 where nothing is scored) and the
causal shift happens here. Computation is in float32 (float64 if the student's logits are).
Divergences are true ones: 0 for identical models. No input is modified, and a batch without
a single scored token gives 0 with a zero gradient.
"""

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from kd.alignment import Alignment, find_alignment
from kd.errors import LossError, nearest
from kd.losses.catalogue import LossInfo, available_losses, loss_info
from kd.losses.rows import (
    AlignedRows,
    Answers,
    TeacherAnswers,
    check_shapes,
    find_answers,
    find_teacher_answers,
    pair_answers,
)
from kd.losses.teacher import Teacher, TeacherLogits, TopKRows

__all__ = ["Conventions", "DistillationLoss", "TeacherLogits", "distillation_loss", "load_loss"]

REDUCTIONS = ("token", "sequence")


@dataclass(frozen=True, kw_only=True)
class Conventions:
    """What every loss leaves to its caller.

    Raises:
        LossError: a value that is not defined.
    """

    alignment: str = "truncate"
    reduction: str = "token"
    temperature: float = 1.0
    teacher_temperature: float | None = None
    t2_scaling: bool = False
    shift: bool = True
    teacher_shift: bool | None = None

    def __post_init__(self) -> None:
        find_alignment(self.alignment)
        if self.reduction not in REDUCTIONS:
            raise LossError(
                f"'{self.reduction}' is no reduction. {nearest(self.reduction, REDUCTIONS)}"
            )
        if min(self.temperature, self.temperature_of_teacher) <= 0:
            raise LossError("a temperature must be greater than 0.")

    @property
    def temperature_of_teacher(self) -> float:
        """The teacher's own temperature, or the common one."""
        own = self.teacher_temperature
        return self.temperature if own is None else own

    @property
    def shift_of_teacher(self) -> bool:
        """Whether the teacher is a decoder; by default what the student is."""
        return self.shift if self.teacher_shift is None else self.teacher_shift


class DistillationLoss(nn.Module):
    """A loss with its conventions, ready to be called on batches."""

    def __init__(
        self, info: LossInfo, function: Callable[..., Tensor], conventions: Conventions
    ) -> None:
        super().__init__()
        self.info = info
        self.conventions = conventions
        self._function = function

    def forward(
        self,
        student_logits: Tensor,
        teacher_logits: Tensor | TeacherLogits | None,
        student_labels: Tensor,
        teacher_labels: Tensor | None = None,
        *,
        normalizer: int | None = None,
    ) -> Tensor:
        """The scalar loss of a batch; arguments as in `distillation_loss`."""
        check_shapes("student", student_logits, student_labels)
        teacher = self._find_teacher(teacher_logits, teacher_labels)
        self._check_vocabulary(student_logits, teacher)
        answers = find_answers(student_labels, self.conventions.shift)
        rows = self._select(student_logits, answers, teacher)
        values = self._function(**{need: getattr(rows, need) for need in self.info.needs})
        scale = self.conventions.temperature**2 if self.conventions.t2_scaling else 1.0
        return scale * _reduce(values, rows.sequence, self.conventions.reduction, normalizer)

    def count(
        self,
        teacher_logits: Tensor | TeacherLogits | None,
        student_labels: Tensor,
        teacher_labels: Tensor | None = None,
    ) -> int:
        """How many tokens (or sequences, by the reduction) the mean over this batch covers.

        The sum over all micro-batches of one optimiser step is that step's `normalizer`.
        """
        teacher = self._find_teacher(teacher_logits, teacher_labels)
        pairs = self._pair(find_answers(student_labels, self.conventions.shift), teacher)
        per_token = self.conventions.reduction == "token"
        return len(pairs.sequence) if per_token else int(_tokens(pairs.sequence).count_nonzero())

    def _find_teacher(
        self, logits: Tensor | TeacherLogits | None, labels: Tensor | None
    ) -> TeacherAnswers | None:
        if not self.info.needs_teacher:
            return None
        return find_teacher_answers(logits, labels, self.conventions.shift_of_teacher)

    def _pair(self, student: Answers, teacher: TeacherAnswers | None) -> Alignment:
        return pair_answers(student, teacher, find_alignment(self.conventions.alignment))

    def _select(
        self, logits: Tensor, answers: Answers, teacher: TeacherAnswers | None
    ) -> AlignedRows:
        pairs = self._pair(answers, teacher)
        chosen = answers.index(pairs.sequence, pairs.student)
        student = logits[pairs.sequence, answers.position[chosen]]
        dtype = torch.float64 if logits.dtype == torch.float64 else torch.float32
        return AlignedRows(
            student=_temper(student.to(dtype), self.conventions.temperature),
            teacher=None if teacher is None else self._soften(teacher.rows(pairs), dtype),
            targets=answers.targets[chosen],
            sequence=pairs.sequence,
        )

    def _soften(self, teacher: Teacher, dtype: torch.dtype) -> Teacher:
        temperature = self.conventions.temperature_of_teacher
        if isinstance(teacher, TopKRows):
            return teacher.cast(dtype).tempered(temperature)
        return _temper(teacher.to(dtype), temperature)

    def _check_vocabulary(self, student_logits: Tensor, teacher: TeacherAnswers | None) -> None:
        if teacher is None or not self.info.same_vocabulary:
            return
        width = student_logits.shape[-1]
        if width != teacher.vocabulary:
            others = [
                info.name
                for info in available_losses().values()
                if info.needs_teacher and not info.same_vocabulary
            ]
            raise LossError(
                f"loss '{self.info.name}' compares token by token, but the student's vocabulary "
                f"has {width} tokens and the teacher's {teacher.vocabulary}: share the tokenizer, "
                f"or use a loss across vocabularies ({', '.join(others)})."
            )


def load_loss(
    name: str, conventions: Conventions | None = None, **options: Any
) -> DistillationLoss:
    """The loss called `name`; only its own module is imported.

    Args:
        name: one of `available_losses()`.
        conventions: alignment, reduction, temperature, shift; by default `Conventions()`.
        options: the loss's own options.

    Raises:
        LossError: an unknown loss, or an option that it does not have.
    """
    info = loss_info(name)
    info.check_options(options)
    function = getattr(importlib.import_module(info.module), info.function)
    return DistillationLoss(info, partial(function, **options), conventions or Conventions())


def distillation_loss(  # noqa: PLR0913 - the whole convention, by keyword
    name: str,
    student_logits: Tensor,
    teacher_logits: Tensor | TeacherLogits | None,
    student_labels: Tensor,
    teacher_labels: Tensor | None = None,
    *,
    alignment: str = "truncate",
    reduction: str = "token",
    temperature: float = 1.0,
    teacher_temperature: float | None = None,
    t2_scaling: bool = False,
    shift: bool = True,
    teacher_shift: bool | None = None,
    normalizer: int | None = None,
    **options: Any,
) -> Tensor:
    """How far the student is from its teacher on the answer tokens of a batch, a scalar.

    Args:
        name: one of `available_losses()`.
        student_logits: [B, Ts, Vs].
        teacher_logits: dense [B, Tt, Vt], stored `TeacherLogits`, or None for a loss that
            needs no teacher. It never receives a gradient.
        student_labels: [B, Ts], same index as the input ids, -100 where nothing is scored.
        teacher_labels: [B, Tt]; not read with `TeacherLogits`, which hold answer tokens only.
        alignment: which tokens are compared (`kd.alignment.ALIGNMENTS`).
        reduction: `token`, the mean over all aligned tokens of the batch; `sequence`, the mean
            over sequences of each one's mean (sequences with no aligned token do not count).
        temperature: divides the logits of both sides.
        teacher_temperature: divides the teacher's logits instead, where it differs.
        t2_scaling: multiply by the square of `temperature`, which keeps gradients comparable.
        shift: logits[t - 1] predicts labels[t] (decoders); False for encoder-decoders.
        teacher_shift: the same for dense teacher logits, where it differs.
        normalizer: divides the sum instead of this batch's own number of tokens (or
            sequences): the number in all micro-batches of one optimiser step, whose losses
            then add up to the loss of the whole (`DistillationLoss.count`).
        options: the loss's own options.

    Raises:
        LossError: something is unknown, or the loss is not defined for what it is given.
    """
    conventions = Conventions(
        alignment=alignment,
        reduction=reduction,
        temperature=temperature,
        teacher_temperature=teacher_temperature,
        t2_scaling=t2_scaling,
        shift=shift,
        teacher_shift=teacher_shift,
    )
    loss = load_loss(name, conventions, **options)
    value: Tensor = loss(
        student_logits, teacher_logits, student_labels, teacher_labels, normalizer=normalizer
    )
    return value


def _temper(logits: Tensor, temperature: float) -> Tensor:
    return logits if temperature == 1.0 else logits / temperature


def _reduce(values: Tensor, sequence: Tensor, reduction: str, normalizer: int | None) -> Tensor:
    """Mean of values [N], over tokens or over sequences; 0 with a zero gradient if N is 0."""
    if reduction == "token":
        return values.sum() / (normalizer or max(len(values), 1))
    tokens = _tokens(sequence)
    return (values / tokens[sequence]).sum() / (normalizer or max(int(tokens.count_nonzero()), 1))


def _tokens(sequence: Tensor) -> Tensor:
    """How many aligned tokens each sequence has, [B]."""
    return sequence.bincount()
