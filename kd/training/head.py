"""A student's forward pass up to its output layer."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from kd.errors import LossError
from kd.training.batches import Batch


def student_inputs(model: PreTrainedModel, batch: Batch) -> dict[str, Tensor]:
    """Arguments of the forward pass, without labels: the model's own loss is not wanted."""
    inputs = dict(batch.inputs)
    if "labels" in inputs:
        labels = inputs.pop("labels")
        inputs["decoder_input_ids"] = model.prepare_decoder_input_ids_from_labels(labels)  # type: ignore[operator]
    return inputs


def before_head(model: PreTrainedModel, inputs: dict[str, Tensor]) -> tuple[nn.Linear, Tensor]:
    """The output layer, and the hidden states [B, T, D] that enter it.

    `require_linear_head` says whether the model's logits are what that layer makes of them.
    """
    head: nn.Linear = model.get_output_embeddings()  # type: ignore[no-untyped-call]
    with _left_out(head):
        hidden: Tensor = model(**inputs, use_cache=False).logits
    return head, hidden


def require_linear_head(model: PreTrainedModel) -> None:
    """Refuse a model whose logits are not those of a linear layer, as they are.

    Raises:
        LossError: there is none, or what it gives is changed afterwards (a soft cap, a scale).
    """
    head = model.get_output_embeddings()  # type: ignore[no-untyped-call]
    if not isinstance(head, nn.Linear) or not _last(model, head):
        raise LossError(
            f"'fused_head' needs a student whose logits are those of a linear layer, and "
            f"{type(model).__name__} computes them otherwise: set 'fused_head: false'."
        )


def _last(model: PreTrainedModel, head: nn.Linear) -> bool:
    """Whether the model gives out what the layer does, by a look at two tokens."""
    given: list[Tensor] = []
    hook = head.register_forward_hook(lambda *call: given.append(call[-1]))
    ids = torch.tensor([[0, 1]], device=model.device)
    inputs = {"input_ids": ids}
    if model.config.is_encoder_decoder:
        inputs["decoder_input_ids"] = ids
    training = model.training
    with torch.no_grad():
        logits = model.train(False)(**inputs).logits
    model.train(training)
    hook.remove()
    return len(given) == 1 and torch.equal(given[0], logits)


@contextmanager
def _left_out(head: nn.Linear) -> Iterator[None]:
    """The layer hands on what enters it."""
    head.forward = lambda input: input  # type: ignore[method-assign]
    try:
        yield
    finally:
        del head.forward
