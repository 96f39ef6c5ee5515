"""What a student minimises: `ce_weight * CE(teacher text) + weight * loss(teacher, student)`."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor, nn
from transformers import PreTrainedModel

from kd.experiment.methods import Method
from kd.losses.distillation import Conventions, Extras, Setup, load_loss
from kd.losses.features import Features
from kd.losses.teacher import TeacherLogits
from kd.training.batches import IGNORED, Batch, Collator
from kd.training.examples import Example
from kd.training.live import LiveTeacher, features_of


@dataclass(frozen=True)
class Terms:
    """The objective and its unweighted parts, scalars with gradient."""

    total: Tensor
    cross_entropy: Tensor
    distillation: Tensor | None

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
    ) -> None:
        """Load the method's losses.

        Args:
            method: weights, loss, its conventions and options.
            eos_token_id: of the student.
            shift: whether the student is a decoder.
            setup: what the loss needs once.
            live: the teacher, where it runs at every step.

        Raises:
            LossError: an option that the loss does not have.
        """
        super().__init__()
        self._method = method
        self._eos = eos_token_id
        self._live = live
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

    @property
    def _reads_features(self) -> bool:
        return self._loss is not None and self._loss.info.needs_live_teacher

    def forward(self, model: PreTrainedModel, batch: Batch) -> Terms:
        """Run the student on `batch`."""
        batch = batch.to(model.device)
        wanted = self._reads_features
        outputs = model(**batch.inputs, output_hidden_states=wanted, output_attentions=wanted)
        # The text that a student wrote is no target: on it there is nothing but the teacher.
        target = batch.labels.masked_fill(batch.student_responses[:, None], IGNORED)
        cross_entropy = self._cross_entropy(outputs.logits, None, target)
        total = self._method.ce_weight * cross_entropy
        if self._loss is None:
            return Terms(total, cross_entropy, None)
        distillation = self._distillation(model, outputs, batch)
        return Terms(total + self._method.weight * distillation, cross_entropy, distillation)

    def _distillation(self, model: PreTrainedModel, outputs: Any, batch: Batch) -> Tensor:
        assert self._loss is not None
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
        value: Tensor = self._loss(
            outputs.logits, teacher, batch.scored(self._eos), teacher_labels, extras=extras
        )
        return value

    def step(self, values: dict[str, float]) -> None:
        """Advance the loss's own schedule after an optimiser step that had these values."""
        if self._loss is not None:
            self._loss.step(values["distillation"])


class LiveCollator:
    """A collator whose batches also hold what a live teacher reads."""

    def __init__(self, collate: Collator, live: LiveTeacher) -> None:
        self._collate = collate
        self._live = live

    def __call__(self, examples: Sequence[Example]) -> Batch:
        """One batch of `examples`, for student and teacher."""
        return replace(self._collate(examples), live=self._live.collate(examples))
