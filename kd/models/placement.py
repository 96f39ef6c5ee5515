"""Placing a model in memory as an experiment asks, and why its attention is what it is."""

import sys
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import torch

from kd.errors import ModelError
from kd.experiment.placement import Placement

LESS_MEMORY = (
    "Load it with 'load: {dtype: bfloat16}', with a 'quantisation' or over several GPUs "
    "('device_map: auto'), or take a GPU with more memory."
)
_FLASH_NEEDS = (8, 0)  # flash-attn 2 asks for Ampere or newer


@dataclass(frozen=True)
class Attention:
    """A backend of the library's attention, by its name there; None leaves it to the library."""

    backend: str | None
    reason: str


def choose_attention(placement: Placement, device: torch.device, architecture: type) -> Attention:
    """The attention of a placed model of the class `architecture` on `device`.

    Raises:
        ModelError: one is asked for that cannot run.
    """
    obstacles = {
        "flash_attention_2": _no_flash(placement, device, architecture),
        "sdpa": _unsupported(architecture, "_supports_sdpa"),
    }
    if placement.attention == "auto":
        if obstacles["flash_attention_2"] is None:
            return Attention("flash_attention_2", "half precision on a GPU, flash-attn installed")
        if obstacles["sdpa"] is None:
            return Attention("sdpa", f"PyTorch's own, as {obstacles['flash_attention_2']}")
        return Attention("eager", f"the plain one, as {obstacles['sdpa']}")
    obstacle = obstacles.get(placement.attention or "")
    if obstacle is not None:
        raise ModelError(
            f"'attention: {placement.attention}' cannot be used: {obstacle}. Use 'auto'."
        )
    return Attention(placement.attention, "asked for in the experiment")


def _unsupported(architecture: type, attribute: str) -> str | None:
    supported = getattr(architecture, attribute, False)
    return None if supported else f"{architecture.__name__} has no such attention"


def _no_flash(placement: Placement, device: torch.device, architecture: type) -> str | None:
    """Why flash-attn cannot run; None if it can."""
    if device.type != "cuda":
        return "there is no GPU"
    if obstacle := _unsupported(architecture, "_supports_flash_attn"):
        return obstacle
    if placement.dtype == "float32":
        return "flash-attn computes in half precision only"
    if torch.cuda.get_device_capability(device) < _FLASH_NEEDS:
        return "flash-attn needs an Ampere GPU or a newer one"
    return None if find_spec("flash_attn") else "flash-attn is not installed"


def loading_arguments(
    placement: Placement | None, device: torch.device, architecture: type
) -> dict[str, Any]:
    """Keyword arguments of `from_pretrained` of the class `architecture`.

    Raises:
        ModelError: a quantised model without bitsandbytes or a GPU, a device map without
            accelerate, or an attention that cannot run.
    """
    if placement is None:
        return {"dtype": torch.float32}
    arguments: dict[str, Any] = {"dtype": getattr(torch, placement.dtype)}
    backend = choose_attention(placement, device, architecture).backend
    if backend is not None:
        arguments["attn_implementation"] = backend
    if placement.device_map is not None:
        _require("accelerate", "'device_map'", ".[gpu]")
        arguments["device_map"] = placement.device_map
    if placement.quantisation is not None:
        arguments |= _quantised(placement, device)
    return arguments


def _quantised(placement: Placement, device: torch.device) -> dict[str, Any]:
    asked = f"'quantisation: {placement.quantisation}'"
    if device.type != "cuda":
        raise ModelError(f"{asked} needs a GPU, and none is used here. Leave it out on a CPU.")
    _require("bitsandbytes", asked, "bitsandbytes")
    from transformers import BitsAndBytesConfig

    dtype = getattr(torch, placement.dtype)
    settings: dict[str, Any] = {"load_in_8bit": True}
    if placement.quantisation == "4bit":
        settings = {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}
        settings["bnb_4bit_compute_dtype"] = dtype
    config = BitsAndBytesConfig(**settings)  # type: ignore[no-untyped-call]
    one_device = {"": device.index or 0}
    return {"quantization_config": config, "device_map": placement.device_map or one_device}


def _require(package: str, asked: str, install: str) -> None:
    if find_spec(package) is None:
        raise ModelError(
            f"{asked} needs {package}, which is not installed: pip install '{install}'"
        )


def placement_notes(placement: Placement | None, model: Any) -> dict[str, Any]:
    """What a manifest notes of a placed model; nothing of one that is loaded as always."""
    if placement is None:
        return {}
    device = torch.device(model.device)
    aside = _offloaded(model)
    used = getattr(model.config, "_attn_implementation", None)
    return {
        "model": {
            "dtype": str(model.dtype).removeprefix("torch."),
            "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
            "device_map": placement.device_map,
            "quantisation": placement.quantisation,
            "attention": used,
            "attention_reason": choose_attention(placement, device, type(model)).reason,
        }
        | ({"offloaded": aside} if aside else {})
    }


def say_offloaded(model: Any) -> None:
    """Say so, where a device map left part of a model outside of the GPUs: it is far slower."""
    aside = _offloaded(model)
    if aside:
        print(
            f"warning: the GPUs do not hold the whole model: {len(aside)} of its parts lie in main "
            "memory or on disk (device_map: auto). Take 'dtype: bfloat16', a 'quantisation' or "
            "more GPUs.",
            file=sys.stderr,
        )


def _offloaded(model: Any) -> list[str]:
    """Parts of a model that lie outside of the GPUs, while others lie on one."""
    places = {name: str(place) for name, place in getattr(model, "hf_device_map", {}).items()}
    aside = sorted(name for name, place in places.items() if place in ("cpu", "disk"))
    return aside if len(aside) < len(places) else []
