"""`distillation_loss`: the convention that all losses share, around the one that is asked for.

Labels are Hugging Face's (same index as the input ids, -100 where nothing is scored) and the
causal shift happens here. Computation is in float32 (float64 if the student's logits are).
Divergences are true ones: 0 for identical models. No input is modified, and a batch without
a single scored token gives 0 with a zero gradient.
"""

import importlib
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from kd.alignment import find_alignment
from kd.errors import LossError
from kd.losses.answers import TeacherAnswers, check_shapes, find_answers, find_teacher_answers
from kd.losses.catalogue import LossInfo, available_losses, loss_info
from kd.losses.chunked import Evaluate, Kernel, by_autograd, by_kernel, weighted_sum
from kd.losses.conventions import Conventions
from kd.losses.rows import AlignedBatch, Extras, pair_answers
from kd.losses.setup import Setup
from kd.losses.teacher import TeacherLogits

__all__ = [
    "Conventions",
    "DistillationLoss",
    "Extras",
    "Setup",
    "TeacherLogits",
    "distillation_loss",
    "load_loss",
]


# Needs of which every row has its own, so that rows may be evaluated a few at a time.
ROW_BY_ROW = {"student", "teacher", "targets", "teacher_targets", "student_responses"}


class DistillationLoss(nn.Module):
    """A loss with its conventions, ready to be called on batches.

    Weights and state of the loss itself, where it has any, are this module's parameters and
    buffers: they train, and are saved, with the student.
    """

    def __init__(
        self,
        info: LossInfo,
        body: Callable[..., Tensor],
        conventions: Conventions,
        kernel: Kernel | None = None,
    ) -> None:
        super().__init__()
        info.check_alignment(conventions.alignment)
        self.info = info
        self.conventions = conventions
        self._body = body
        self._kernel = kernel
        self._alignment = conventions.alignment or info.alignments[0]
        self._align = find_alignment(self._alignment)

    def forward(
        self,
        student_logits: Tensor,
        teacher_logits: Tensor | TeacherLogits | None,
        student_labels: Tensor,
        teacher_labels: Tensor | None = None,
        *,
        extras: Extras | None = None,
        normalizer: int | None = None,
    ) -> Tensor:
        """The scalar loss of a batch; arguments as in `distillation_loss`."""
        check_shapes("student", student_logits, student_labels)
        if normalizer is not None and normalizer < 1:
            raise LossError(f"normalizer is {normalizer}, but must be at least 1.")
        batch = self._align_batch(
            student_logits, teacher_logits, student_labels, teacher_labels, extras or Extras()
        )
        self._check_vocabulary(student_logits, batch.other)
        scale = self.conventions.temperature**2 if self.conventions.t2_scaling else 1.0
        if not len(batch.sequence):
            return batch.student.sum()  # 0, with a zero gradient
        weights = _weights(batch.sequence, self.conventions.reduction, normalizer) * scale
        if self._row_by_row:
            return weighted_sum(batch, weights, self._evaluate)
        values = self._body(**{need: getattr(batch, need) for need in self.info.needs})
        # A scalar is the value of the whole batch; among micro-batches it counts by its rows.
        return (weights.to(values.dtype) * values).sum()

    @property
    def _evaluate(self) -> Evaluate:
        if self._kernel is None:
            return by_autograd(self._body, self.info.needs)
        return by_kernel(self._kernel, self._body, self.info.needs)

    @property
    def _row_by_row(self) -> bool:
        """Whether each value depends on its own row alone, through the student's logits."""
        # Spans of single tokens have nothing to do with other rows.
        own = ROW_BY_ROW | ({"spans"} if self._alignment == "truncate" else set())
        return (
            not isinstance(self._body, nn.Module)
            and self.info.rows == "independent"
            and {"student"} <= set(self.info.needs) <= own
        )

    def count(
        self,
        student_logits: Tensor,
        teacher_logits: Tensor | TeacherLogits | None,
        student_labels: Tensor,
        teacher_labels: Tensor | None = None,
        *,
        extras: Extras | None = None,
    ) -> int:
        """How many tokens (or sequences, by the reduction) the mean over this batch covers.

        The sum over all micro-batches of one optimiser step is that step's `normalizer`.
        """
        batch = self._align_batch(
            student_logits, teacher_logits, student_labels, teacher_labels, extras or Extras()
        )
        return _count(batch.sequence, self.conventions.reduction)

    def step(self, value: float) -> None:
        """Advance the loss's own schedule, if it has one, after an optimiser step.

        Args:
            value: what the loss was in that step.
        """
        advance = getattr(self._body, "step", None)
        if advance is not None:
            advance(value)

    def _align_batch(
        self,
        student_logits: Tensor,
        teacher_logits: Tensor | TeacherLogits | None,
        student_labels: Tensor,
        teacher_labels: Tensor | None,
        extras: Extras,
    ) -> AlignedBatch:
        own = find_answers(student_labels, self.conventions.shift, extras.student_ends)
        other = None
        if self.info.needs_teacher:
            other = find_teacher_answers(
                teacher_logits,
                teacher_labels,
                self.conventions.shift_of_teacher,
                extras.teacher_ends,
            )
        return AlignedBatch(
            logits=student_logits,
            own=own,
            other=other,
            pairs=pair_answers(own, other, self._align),
            extras=extras,
            temperature=self.conventions.temperature,
            teacher_temperature=self.conventions.temperature_of_teacher,
        )

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
    name: str,
    conventions: Conventions | None = None,
    *,
    setup: Setup | None = None,
    **options: Any,
) -> DistillationLoss:
    """The loss called `name`; only its own module is imported.

    Args:
        name: one of `available_losses()`, or an alias.
        conventions: alignment, reduction, temperature, shift; by default `Conventions()`.
        setup: what some losses need once: token texts, model sizes, number of steps.
        options: the loss's own options.

    Raises:
        LossError: an unknown loss, an option that it does not have, an alignment under which
            it is not defined, or something missing from `setup`.
    """
    info = loss_info(name)
    info.check_options(options)
    declared = getattr(importlib.import_module(info.module), info.function)
    kernel = None
    if isinstance(declared, type):
        given = setup or Setup()
        body = declared(*(given.require(name, need) for need in info.setup), **options)
    else:
        body = partial(declared, **options)
        if info.kernel is not None:
            kernel = partial(
                getattr(importlib.import_module(info.kernel), info.function), **options
            )
    return DistillationLoss(info, body, conventions or Conventions(), kernel)


def distillation_loss(  # noqa: PLR0913 - the whole convention, by keyword
    name: str,
    student_logits: Tensor,
    teacher_logits: Tensor | TeacherLogits | None,
    student_labels: Tensor,
    teacher_labels: Tensor | None = None,
    *,
    alignment: str | None = None,
    reduction: str = "token",
    temperature: float = 1.0,
    teacher_temperature: float | None = None,
    t2_scaling: bool = False,
    shift: bool = True,
    teacher_shift: bool | None = None,
    extras: Extras | None = None,
    setup: Setup | None = None,
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
        alignment: which tokens are compared (`kd.alignment.ALIGNMENTS`); by default the first
            that the loss declares.
        reduction: `token`, the mean over all aligned tokens of the batch; `sequence`, the mean
            over sequences of each one's mean (sequences with no aligned token do not count).
        temperature: divides the logits of both sides.
        teacher_temperature: divides the teacher's logits instead, where it differs.
        t2_scaling: multiply by the square of `temperature`, which keeps gradients comparable.
        shift: logits[t - 1] predicts labels[t] (decoders); False for encoder-decoders.
        teacher_shift: the same for dense teacher logits, where it differs.
        extras: what some losses ask for beside logits and labels.
        setup: what some losses need once. A loss with weights or state of its own is better
            loaded once, with `load_loss`.
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
    loss = load_loss(name, conventions, setup=setup, **options)
    value: Tensor = loss(
        student_logits,
        teacher_logits,
        student_labels,
        teacher_labels,
        extras=extras,
        normalizer=normalizer,
    )
    return value


def _weights(sequence: Tensor, reduction: str, normalizer: int | None) -> Tensor:
    """What each of N rows counts, [N] float64, so that the weighted sum is the mean asked for."""
    count = normalizer or _count(sequence, reduction)
    if reduction == "token":
        return torch.full_like(sequence, 1 / count, dtype=torch.float64)
    return 1 / (count * sequence.bincount()[sequence].double())


def _count(sequence: Tensor, reduction: str) -> int:
    """Aligned tokens, or sequences that have any."""
    return len(sequence) if reduction == "token" else int(sequence.bincount().count_nonzero())
