"""Placing a model in memory as an experiment asks, and why its attention is what it is."""

import sys
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import torch

from kd.errors import ModelError
from kd.experiment.placement import Placement

_HOPPER_NEEDS = (8, 0)  # flash-attn 2 asks for Ampere or newer


@dataclass(frozen=True)
class Attention:
    """A backend of the library's attention, by its name there; None leaves it to the library."""

    backend: str | None
    reason: str


def choose_attention(placement: Placement, device: torch.device) -> Attention:
    """The attention of a placed model on `device`.

    Raises:
        ModelError: `flash_attention_2` is asked for where it cannot run.
    """
    obstacle = _no_flash(placement, device)
    if placement.attention == "auto":
        if obstacle is None:
            return Attention("flash_attention_2", "half precision on a GPU, flash-attn installed")
        return Attention("sdpa", f"PyTorch's own, as {obstacle}")
    if placement.attention == "flash_attention_2" and obstacle is not None:
        raise ModelError(
            f"'attention: flash_attention_2' cannot be used: {obstacle}. Use 'auto' or 'sdpa'."
        )
    return Attention(placement.attention, "asked for in the experiment")


def _no_flash(placement: Placement, device: torch.device) -> str | None:
    """Why flash-attn cannot run; None if it can."""
    if device.type != "cuda":
        return "there is no GPU"
    if placement.dtype == "float32":
        return "flash-attn computes in half precision only"
    if torch.cuda.get_device_capability(device) < _HOPPER_NEEDS:
        return "flash-attn needs an Ampere GPU or a newer one"
    return None if find_spec("flash_attn") else "flash-attn is not installed"


def loading_arguments(placement: Placement | None, device: torch.device) -> dict[str, Any]:
    """Keyword arguments of `from_pretrained`.

    Raises:
        ModelError: a quantised model without bitsandbytes or a GPU, a device map without
            accelerate, or an attention that cannot run.
    """
    if placement is None:
        return {"dtype": torch.float32}
    arguments: dict[str, Any] = {"dtype": getattr(torch, placement.dtype)}
    backend = choose_attention(placement, device).backend
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
            "attention_reason": choose_attention(placement, device).reason,
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
