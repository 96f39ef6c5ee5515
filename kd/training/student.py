"""What training asks of a student: its weights, less memory, or compiled code."""

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn
from transformers import PreTrainedModel

from kd.experiment.schema import Training


def prepare_student(model: PreTrainedModel, training: Training) -> None:
    """Set up `model` in place; the names of its weights stay what they are."""
    if training.gradient_checkpointing:
        # The other kind needs an input with a gradient, and is at odds with several processes.
        _checkpoint(model)({"use_reentrant": False})
    if training.compile:
        for body in _bodies(model):
            body.compile(dynamic=True)


def _checkpoint(model: PreTrainedModel) -> Callable[[dict[str, Any]], None]:
    """The library's method, by its newer name where it has it."""
    newer = getattr(model, "activation_checkpointing_enable", None)
    found: Callable[[dict[str, Any]], None] = newer or model.gradient_checkpointing_enable
    return found


def _bodies(model: PreTrainedModel) -> list[nn.Module]:
    """All but the output layer, which `fused_head` calls by itself."""
    if model.config.is_encoder_decoder:
        return [model.get_encoder(), model.get_decoder()]  # type: ignore[no-untyped-call]
    inner = model.base_model
    return [inner if isinstance(inner, nn.Module) else model]


def trained_weights(model: PreTrainedModel) -> dict[str, Tensor]:
    """The weights of `model` by name; of one with adapters those of the adapters alone."""
    frozen = {name for name, weight in model.named_parameters() if not weight.requires_grad}
    if not frozen:
        return model.state_dict()
    return {name: weight for name, weight in model.named_parameters() if name not in frozen}


def restore_trained(model: PreTrainedModel, weights: Mapping[str, Tensor]) -> None:
    """Put back what `trained_weights` gave."""
    whole = weights.keys() == model.state_dict().keys()
    model.load_state_dict(dict(weights), strict=whole)
