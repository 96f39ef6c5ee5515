"""What training asks of a student beside its weights: less memory, or compiled code."""

from collections.abc import Callable
from typing import Any

from torch import nn
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
