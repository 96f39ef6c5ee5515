"""What a student minimises: `ce_weight * CE(teacher text) + weight * loss(teacher, student)`."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from math import isfinite
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from kd.errors import TrainingError
from kd.experiment.methods import Method
from kd.losses.bounds.report import Certificate, exactness
from kd.losses.distillation import Conventions, Extras, Setup, load_loss
from kd.losses.features import Features
from kd.losses.fused_head import placeholder, sums_through_head
from kd.losses.teacher import TeacherLogits
from kd.training.batches import IGNORED, Batch, Collator
from kd.training.examples import Example
from kd.training.head import before_head, student_inputs
from kd.training.live import LiveTeacher, features_of


class Counts(NamedTuple):
    """Over how many tokens (or sequences) the means of a step are taken, in all of its parts."""

    cross_entropy: int
    distillation: int


@dataclass(frozen=True)
class Terms:
    """The objective and its unweighted parts, scalars with gradient."""

    total: Tensor
    cross_entropy: Tensor
    distillation: Tensor | None
    exactness: dict[str, float] = field(default_factory=dict)  # of training on stored logits

    def values(self) -> dict[str, float]:
        """The parts as numbers, under the names of the training curve."""
        parts = {"loss": self.total.item(), "cross_entropy": self.cross_entropy.item()}
        if self.distillation is not None:
            parts["distillation"] = self.distillation.item()
        return parts


class Objective(nn.Module):
    """A method's objective, applied to a student and a batch.

    Its parameters and buffers are those of the loss itself (learned projections, schedules).
    """

    def __init__(
        self,
        method: Method,
        *,
        eos_token_id: int,
        shift: bool,
        setup: Setup | None = None,
        live: LiveTeacher | None = None,
        fused_head: bool = False,
        max_logit_error: float | None = None,
    ) -> None:
        """Load the method's losses.

        Args:
            method: weights, loss, its conventions and options.
            eos_token_id: of the student.
            shift: whether the student is a decoder.
            setup: what the loss needs once.
            live: the teacher, where it runs at every step.
            fused_head: evaluate the student's output layer together with the losses.
            max_logit_error: most by which the loss of a batch may be off, for what was stored of
                the teacher.

        Raises:
            LossError: an option that the loss does not have, or a loss that cannot be fused.
        """
        super().__init__()
        self._method = method
        self._eos = eos_token_id
        self._live = live
        self._fused = fused_head
        self._max_logit_error = max_logit_error
        self._cross_entropy = load_loss("cross_entropy", Conventions(shift=shift))
        self._loss = None
        if method.loss != "none":
            conventions = Conventions(
                alignment=method.alignment,
                reduction=method.reduction,
                temperature=method.temperature,
                teacher_temperature=method.teacher_temperature,
                t2_scaling=method.t2_scaling,
                shift=shift,
                teacher_shift=None if live is None else not live.encoder_decoder,
            )
            self._loss = load_loss(method.loss, conventions, setup=setup, **method.options)
            if fused_head:
                self._loss.require_row_by_row()

    @property
    def _reads_features(self) -> bool:
        return self._loss is not None and self._loss.info.needs_live_teacher

    def forward(
        self,
        model: PreTrainedModel,
        batch: Batch,
        counts: Counts | None = None,
        *,
        certify: bool = False,
    ) -> Terms:
        """Run the student on `batch`.

        Args:
            model: the student.
            batch: on its device or another.
            counts: of the whole step, if `batch` is a part of it.
            certify: say what stored logits leave open about the batch. Under `max_logit_error`
                that is always looked at in training.

        Raises:
            TrainingError: what they leave open is more than `max_logit_error`.
        """
        certify = certify or (self.training and self._max_logit_error is not None)
        batch = batch.to(model.device)
        target = _target(batch)
        if self._fused:
            return self._through_head(model, batch, target, counts, certify)
        wanted = self._reads_features
        outputs = model(
            **student_inputs(model, batch),
            output_hidden_states=wanted,
            output_attentions=wanted,
            use_cache=False,  # nothing is generated
        )
        own, other = _normalizers(counts)
        cross_entropy = self._cross_entropy(outputs.logits, None, target, normalizer=own)
        total = self._method.ce_weight * cross_entropy
        if self._loss is None:
            return Terms(total, cross_entropy, None)
        given = self._compared(model, outputs, batch)
        distillation = self._loss(outputs.logits, **given, normalizer=other)
        found: dict[str, float] = {}
        if certify and isinstance(given["teacher_logits"], TeacherLogits):
            aligned = self._loss.align(outputs.logits, **given)
            found = self._checked(exactness(self._loss, self._method.options, aligned))
        total = total + self._method.weight * distillation
        return Terms(total, cross_entropy, distillation, found)

    def counts(self, model: PreTrainedModel, batch: Batch) -> Counts:
        """What `batch` counts among the parts of a step; no model is run."""
        wide = model.config.vocab_size
        logits = torch.empty(*batch.labels.shape, wide, device="meta")
        own = self._cross_entropy.count(logits, None, _target(batch))
        if self._loss is None:
            return Counts(own, 0)
        teacher: TeacherLogits | Tensor | None = batch.teacher
        labels = ends = None
        if self._live is not None and batch.live is not None:
            labels = batch.live.scored(self._live.tokenizer.eos_token_id)
            ends = batch.live.ends
            wide = self._live.model.config.vocab_size
            teacher = torch.empty(*labels.shape, wide, device="meta")
        extras = Extras(
            student_ends=batch.ends,
            student_responses=batch.student_responses,
            teacher_ends=ends,
        )
        scored = batch.scored(self._eos)
        return Counts(own, self._loss.count(logits, teacher, scored, labels, extras=extras))

    def _through_head(
        self,
        model: PreTrainedModel,
        batch: Batch,
        target: Tensor,
        counts: Counts | None,
        certify: bool,
    ) -> Terms:
        """The same, without the student's logits as a whole."""
        own, other = _normalizers(counts)
        head, hidden = before_head(model, student_inputs(model, batch))
        logits = placeholder(hidden, head)
        given = {
            "teacher_logits": None,
            "student_labels": target,
            "teacher_labels": None,
            "extras": Extras(),
        }
        terms = [self._cross_entropy.term(logits, **given, normalizer=own)]
        factors = [self._method.ce_weight]
        certificate = None
        if self._loss is not None:
            given = self._compared(model, None, batch)
            term = self._loss.term(logits, **given, normalizer=other)
            if certify and isinstance(given["teacher_logits"], TeacherLogits):
                certificate = Certificate(self._loss, self._method.options, term.batch)
                term = replace(term, evaluate=certificate.beside(term.evaluate))
            terms.append(term)
            factors.append(self._method.weight)
        total, values = sums_through_head(hidden, head, terms, factors)
        found: dict[str, float] = {} if certificate is None else self._checked(certificate.values())
        return Terms(total, values[0], values[1] if len(values) > 1 else None, found)

    def _compared(self, model: PreTrainedModel, outputs: Any, batch: Batch) -> dict[str, Any]:
        """What the loss is given beside the student's logits."""
        extras = Extras(student_ends=batch.ends, student_responses=batch.student_responses)
        teacher: TeacherLogits | Tensor | None = batch.teacher
        teacher_labels = None
        if self._live is not None and batch.live is not None:
            seen = self._live(batch.live, features=self._reads_features)
            teacher, teacher_labels = seen.logits, seen.labels
            extras = replace(extras, teacher_ends=seen.ends)
            if seen.features is not None:
                features = Features(features_of(model, outputs), seen.features)
                extras = replace(extras, features=features)
        return {
            "teacher_logits": teacher,
            "student_labels": batch.scored(self._eos),
            "teacher_labels": teacher_labels,
            "extras": extras,
        }

    def _checked(self, found: dict[str, float]) -> dict[str, float]:
        """What stored logits leave open about a batch, if that is no more than the limit."""
        error, limit = found.get("logit_error_mean", 0.0), self._max_logit_error
        if limit is not None and not error <= limit:
            raise TrainingError(
                f"'{self._method.loss}' may be off by {error:.3g} on a batch for what was stored "
                f"of the teacher, but 'max_logit_error' is {limit}. Lower 'logits.epsilon', raise "
                "the cap if there is one, or allow more."
            )
        return {name: value for name, value in found.items() if isfinite(value)}

    def step(self, values: dict[str, float]) -> None:
        """Advance the loss's own schedule after an optimiser step that had these values."""
        if self._loss is not None:
            self._loss.step(values["distillation"])


def _target(batch: Batch) -> Tensor:
    """Labels of the cross-entropy: the text that a student wrote is no target."""
    return batch.labels.masked_fill(batch.student_responses[:, None], IGNORED)


def _normalizers(counts: Counts | None) -> tuple[int | None, int | None]:
    """What the sums of both terms are divided by; None for a batch that is the whole step."""
    return (None, None) if counts is None else (max(counts[0], 1), max(counts[1], 1))


class LiveCollator:
    """A collator whose batches also hold what a live teacher reads."""

    def __init__(self, collate: Collator, live: LiveTeacher) -> None:
        self._collate = collate
        self._live = live

    def __call__(self, examples: Sequence[Example]) -> Batch:
        """One batch of `examples`, for student and teacher."""
        return replace(self._collate(examples), live=self._live.collate(examples))
