"""Low-rank adapters (LoRA, Hu et al., arXiv 2106.09685) as `peft` has them.

A student with adapters is trained like any other: the adapted model is the model itself, its
layers exchanged in place. What is written is either a plain model, the adapters merged into its
weights, or a folder with the adapters alone. That names the weights they belong to by digest; they
are loaded together with them, or not at all.
"""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from kd.errors import ModelError
from kd.experiment.methods import Lora
from kd.provenance.canonical import canonical_json
from kd.provenance.manifest import path_digest

ADAPTER = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
BASE = "base.json"
_TASKS = {False: "CAUSAL_LM", True: "SEQ_2_SEQ_LM"}


class Adapters:
    """The adapters of one model."""

    def __init__(self, model: PreTrainedModel, settings: Lora, seed: int) -> None:
        """Put adapters into `model`, whose own weights are no longer trained.

        The first weights are a function of `seed`; they change nothing of what the model says.

        Raises:
            ModelError: peft is not installed, or the model has no such layers.
        """
        peft = _peft()
        everywhere = settings.targets == "all"
        config = peft.LoraConfig(
            r=settings.rank,
            lora_alpha=settings.alpha,
            lora_dropout=settings.dropout,
            target_modules="all-linear" if everywhere else list(settings.targets),
            task_type=_TASKS[bool(model.config.is_encoder_decoder)],
        )
        with torch.random.fork_rng(devices=_devices(model)):
            torch.manual_seed(seed)
            try:
                self._adapted = peft.get_peft_model(model, config)
            except ValueError as error:
                cause = " ".join(str(error).split())
                raise ModelError(
                    f"'lora.targets' do not fit {type(model).__name__}: {cause}"
                ) from None
        self._model = model
        self._settings = settings

    def write(self, tokenizer: PreTrainedTokenizerBase, base: str, folder: Path) -> None:
        """Write the model into `folder`: merged, or the adapters of the weights `base` (SHA-256).

        Merging is final: the model in memory is then a plain one, too.
        """
        tokenizer.save_pretrained(folder)
        if self._settings.merge:
            self._adapted.merge_and_unload().save_pretrained(folder)
            return
        weights = _peft().get_peft_model_state_dict(self._adapted)
        kept = {name: weight.detach().cpu().contiguous() for name, weight in weights.items()}
        save_file(kept, folder / WEIGHTS, metadata={"format": "pt"})
        (folder / ADAPTER).write_text(self._config() + "\n", encoding="utf-8")
        (folder / BASE).write_text(canonical_json({"sha256": base}) + "\n", encoding="utf-8")
        self._model.config.save_pretrained(folder)

    def _config(self) -> str:
        """The adapters' own configuration, always in the same order and without a local path."""
        found = self._adapted.peft_config["default"].to_dict()
        found |= {"base_model_name_or_path": None, "inference_mode": True}
        plain = {
            name: sorted(value) if isinstance(value, set) else value
            for name, value in found.items()
        }
        return json.dumps(plain, indent=2, sort_keys=True, default=str)


def is_adapter(folder: Path) -> bool:
    """Whether `folder` holds adapters without the model that they belong to."""
    return (folder / ADAPTER).is_file()


def require_base(folder: Path, base: Path | None) -> Path:
    """The folder of the weights that the adapters in `folder` belong to.

    Raises:
        ModelError: it is not given, or holds other weights.
    """
    if base is None:
        raise ModelError(
            f"{folder}: holds adapters, not a whole model. Name the folder of the student that "
            "they were trained on: --base FOLDER"
        )
    try:
        wanted = str(json.loads((folder / BASE).read_text(encoding="utf-8"))["sha256"])
    except (OSError, ValueError, KeyError, TypeError):
        raise ModelError(
            f"{folder}: {BASE} does not say whose adapters these are. Re-run the distillation."
        ) from None
    found = path_digest(base)
    if found != wanted:
        raise ModelError(
            f"{base}: not the weights that the adapters in {folder} were trained on (digest "
            f"{found[:12]}, expected {wanted[:12]}). Name another --base, or train again."
        )
    return base


def merge_adapters(model: PreTrainedModel, folder: Path) -> PreTrainedModel:
    """`model` with the adapters in `folder` added to its weights.

    Raises:
        ModelError: they do not fit, or peft is not installed.
    """
    try:
        adapted = _peft().PeftModel.from_pretrained(model, str(folder))
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        cause = " ".join(str(error).split())[:200]
        raise ModelError(f"{folder}: the adapters cannot be loaded ({cause}).") from None
    merged: PreTrainedModel = adapted.merge_and_unload()
    return merged


def _devices(model: PreTrainedModel) -> list[torch.device]:
    return [model.device] if model.device.type == "cuda" else []


def _peft() -> Any:
    try:
        import peft
    except ImportError:
        raise ModelError("'lora' needs peft: pip install -c constraints.txt -e '.[lora]'") from None
    return peft
