"""What a step needs of memory, and which settings would need less.

The estimate is the usual one of a transformer: per token and layer 34 values' bytes of 16-bit
activations a unit of width (Korthikanti et al., arXiv 2205.05198, eq. 1, with an attention that
does not keep its matrix), weights, gradients and Adam's two moments in float32, and the logits
as often as they are held. Where a step has just failed, its own estimate is too small if it is
below what the device has: all are then scaled by what is missing.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import product

import torch
from transformers import PreTrainedModel

from kd.experiment.schema import Training
from kd.losses.fused_head import GPU_HEAD_ROWS

_ACTIVATIONS = 34  # bytes a token, layer and unit of width, in 16-bit training
_LOGIT_COPIES = 3  # the logits, their gradient, and what a loss computes of them
_MARGIN = 0.9  # of the memory that may be planned for: fragments are lost
_SUGGESTIONS = 2


@dataclass(frozen=True)
class Shapes:
    """Sizes of a model and of the rows of a step."""

    parameters: int
    trained: int  # parameters
    layers: int
    width: int
    vocabulary: int
    rows: int
    length: int  # tokens of the longest row


@dataclass(frozen=True)
class Settings:
    """What trades memory for time, at the same effective batch."""

    micro_batch: int
    gradient_checkpointing: bool
    fused_head: bool
    half: bool

    def bytes(self, shapes: Shapes) -> float:
        """Estimated memory of a step."""
        tokens = min(self.micro_batch, shapes.rows) * shapes.length
        width = 1 if self.half else 2
        full = _ACTIVATIONS * width * tokens * shapes.width
        kept = 2 * width * tokens * shapes.width * shapes.layers + full
        activations = kept if self.gradient_checkpointing else full * shapes.layers
        held = min(tokens, GPU_HEAD_ROWS) if self.fused_head else tokens
        logits = held * shapes.vocabulary * (2 * width + 4 * (_LOGIT_COPIES - 1))
        return 4.0 * (shapes.parameters + 3 * shapes.trained) + activations + logits

    def written(self, given: "Settings") -> str:
        """The keys in which these differ from `given`, as an experiment file has them."""
        names = ("micro_batch", "gradient_checkpointing", "fused_head")
        changed = [name for name in names if getattr(self, name) != getattr(given, name)]
        return ", ".join(f"{name}: {str(getattr(self, name)).lower()}" for name in changed)


def shapes_of(model: PreTrainedModel, rows: int, length: int) -> Shapes:
    """Sizes of `model`, for `rows` rows of up to `length` tokens."""
    config = model.config.get_text_config(decoder=True)
    return Shapes(
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        trained=sum(p.numel() for p in model.parameters() if p.requires_grad),
        layers=config.num_hidden_layers,
        width=config.hidden_size,
        vocabulary=config.vocab_size,
        rows=rows,
        length=length,
    )


def settings_of(training: Training, rows: int) -> Settings:
    """The settings of a run whose steps have `rows` rows on each process."""
    return Settings(
        micro_batch=min(training.micro_batch or rows, rows),
        gradient_checkpointing=training.gradient_checkpointing,
        fused_head=training.fused_head,
        half=training.precision == "bfloat16",
    )


def fitting(shapes: Shapes, given: Settings, memory: float) -> list[Settings]:
    """Settings that should fit into `memory` bytes where `given` did not, cheapest first.

    Each costs as little time as its kind can: without checkpointing, then with it, the most rows
    at a time.
    """
    scale = max(1.0, memory / given.bytes(shapes))
    found: dict[tuple[bool, bool], Settings] = {}
    for settings in _cheaper(given):
        kind = (settings.gradient_checkpointing, settings.fused_head)
        fits = settings.bytes(shapes) * scale <= _MARGIN * memory
        if kind not in found and settings != given and fits:
            found[kind] = settings
    return list(found.values())


def _cheaper(given: Settings) -> Iterator[Settings]:
    sizes = [given.micro_batch]
    while sizes[-1] > 1:
        sizes.append((sizes[-1] + 1) // 2)
    checkpointing = sorted({given.gradient_checkpointing, True})
    fused = sorted({given.fused_head, True})
    for recompute, head, size in product(checkpointing, fused, sizes):
        yield replace(given, micro_batch=size, gradient_checkpointing=recompute, fused_head=head)


def out_of_memory(model: PreTrainedModel, training: Training, rows: int, length: int) -> str:
    """One sentence on what did not fit, and one on what would."""
    shapes, given = shapes_of(model, rows, length), settings_of(training, rows)
    memory, name = _device_memory(model.device)
    needed = given.bytes(shapes) / 2**30
    found = fitting(shapes, given, memory)[:_SUGGESTIONS]
    said = (
        f"out of memory on {name} ({memory / 2**30:.1f} GiB): {given.micro_batch} rows of up to "
        f"{length} tokens, {shapes.parameters / 1e6:.0f} M weights, a vocabulary of "
        f"{shapes.vocabulary} ({training.precision}; estimated {needed:.1f} GiB or more). "
    )
    if not found:
        return said + (
            "No setting of 'training' would make one row fit: shorten 'max_length', train with "
            "'lora', or take a smaller student or a larger GPU."
        )
    ways = "; or ".join(f"'{settings.written(given)}'" for settings in found)
    return said + f"With the same effective batch it should fit with, under 'training', {ways}."


def _device_memory(device: torch.device) -> tuple[float, str]:
    if device.type == "cuda":
        found = torch.cuda.get_device_properties(device)
        return float(found.total_memory), str(found.name)
    return float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")), "the CPU"
