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

from torch import Tensor, nn

from kd.alignment import find_alignment
from kd.errors import LossError
from kd.losses.answers import check_shapes, find_answers, find_teacher_answers
from kd.losses.catalogue import LossInfo, loss_info
from kd.losses.chunked import Evaluate, Kernel, by_autograd, by_kernel, weighted_sum
from kd.losses.compatibility import check_teacher
from kd.losses.conventions import Conventions
from kd.losses.fused_head import Term
from kd.losses.reduction import count_rows, row_weights
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
        if normalizer is not None and normalizer < 1:
            raise LossError(f"normalizer is {normalizer}, but must be at least 1.")
        batch = self.align(student_logits, teacher_logits, student_labels, teacher_labels, extras)
        if not len(batch.sequence):
            return batch.student.sum()  # 0, with a zero gradient
        weights = self.weights(batch, normalizer)
        if self._row_by_row:
            return weighted_sum(batch, weights, self._evaluate)
        values = self._body(**{need: getattr(batch, need) for need in self.info.needs})
        # A scalar is the value of the whole batch; among micro-batches it counts by its rows.
        return (weights.to(values.dtype) * values).sum()

    @property
    def scale(self) -> float:
        """What all values are multiplied by."""
        return self.conventions.temperature**2 if self.conventions.t2_scaling else 1.0

    def weights(self, batch: AlignedBatch, normalizer: int | None = None) -> Tensor:
        """What the value of each of N rows counts in the loss of a batch, [N] float64."""
        return row_weights(batch.sequence, self.conventions.reduction, normalizer) * self.scale

    def term(self, logits: Tensor, *, normalizer: int | None = None, **compared: Any) -> Term:
        """What `kd.losses.fused_head` evaluates; `logits` are its placeholder.

        Raises:
            LossError: the loss is not evaluated row by row, or as in `distillation_loss`.
        """
        self.require_row_by_row()
        batch = self.align(logits, **compared)
        return Term(batch, self.weights(batch, normalizer), self._evaluate)

    def require_row_by_row(self) -> None:
        """Refuse what the output layer cannot be fused with.

        Raises:
            LossError: the loss reads more of the student than one row of logits at a time.
        """
        if not self._row_by_row:
            raise LossError(
                f"'fused_head' gives a loss one row of logits at a time, and loss "
                f"'{self.info.name}' (alignment '{self._alignment}') reads more of the student "
                f"or keeps weights of its own: set 'fused_head: false'."
            )

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
        batch = self.align(student_logits, teacher_logits, student_labels, teacher_labels, extras)
        return count_rows(batch.sequence, self.conventions.reduction)

    def step(self, value: float) -> None:
        """Advance the loss's own schedule, if it has one, after an optimiser step.

        Args:
            value: what the loss was in that step.
        """
        advance = getattr(self._body, "step", None)
        if advance is not None:
            advance(value)

    def align(
        self,
        student_logits: Tensor,
        teacher_logits: Tensor | TeacherLogits | None,
        student_labels: Tensor,
        teacher_labels: Tensor | None = None,
        extras: Extras | None = None,
    ) -> AlignedBatch:
        """The batch as the loss sees it: its aligned rows, at its temperatures."""
        check_shapes("student", student_logits, student_labels)
        extras = extras or Extras()
        own = find_answers(student_labels, self.conventions.shift, extras.student_ends)
        other = None
        if self.info.needs_teacher:
            other = find_teacher_answers(
                teacher_logits,
                teacher_labels,
                self.conventions.shift_of_teacher,
                extras.teacher_ends,
            )
        check_teacher(self.info, student_logits.shape[-1], other)
        return AlignedBatch(
            logits=student_logits,
            own=own,
            other=other,
            pairs=pair_answers(own, other, self._align),
            extras=extras,
            temperature=self.conventions.temperature,
            teacher_temperature=self.conventions.temperature_of_teacher,
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
