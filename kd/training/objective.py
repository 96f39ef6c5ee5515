"""What a student minimises: `ce_weight * CE(teacher text) + weight * loss(teacher, student)`."""

from dataclasses import dataclass

from torch import Tensor
from transformers import PreTrainedModel

from kd.experiment.schema import Method
from kd.losses.distillation import Conventions, load_loss
from kd.training.batches import IGNORED, Batch


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


class Objective:
    """A method's objective, applied to a student and a batch."""

    def __init__(self, method: Method, *, eos_token_id: int, shift: bool) -> None:
        """Load the method's losses.

        Args:
            method: weights, loss, its conventions and options.
            eos_token_id: of the student.
            shift: whether the student is a decoder.

        Raises:
            LossError: an option that the loss does not have.
        """
        self._method = method
        self._eos = eos_token_id
        self._cross_entropy = load_loss("cross_entropy", Conventions(shift=shift))
        self._loss = None
        if method.loss != "none":
            conventions = Conventions(
                alignment=method.alignment,
                reduction=method.reduction,
                temperature=method.temperature,
                t2_scaling=method.t2_scaling,
                shift=shift,
            )
            self._loss = load_loss(method.loss, conventions, **method.options)

    def __call__(self, model: PreTrainedModel, batch: Batch) -> Terms:
        """Run the student on `batch`."""
        batch = batch.to(model.device)
        logits = model(**batch.inputs).logits
        cross_entropy = self._cross_entropy(logits, None, batch.labels)
        total = self._method.ce_weight * cross_entropy
        if self._loss is None:
            return Terms(total, cross_entropy, None)
        # The teacher's stored tokens end before EOS, so the student's do here as well; when
        # to stop is learned from the cross-entropy.
        labels = batch.labels.masked_fill(batch.labels == self._eos, IGNORED)
        distillation = self._loss(logits, batch.teacher, labels)
        return Terms(total + self._method.weight * distillation, cross_entropy, distillation)
