"""Loading a model folder in the hub's own format: config, safetensors, tokenizer.

Nothing is fetched and no code of a model is run: a folder is all that a stage ever sees.
"""

import os
from collections.abc import Collection
from pathlib import Path

import torch
from safetensors import SafetensorError
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils import logging

from kd.errors import ModelError
from kd.experiment.placement import Placement
from kd.gpus import VISIBLE
from kd.models.adapters import is_adapter, merge_adapters, require_base
from kd.models.placement import LESS_MEMORY, loading_arguments, say_offloaded

_CUDA = torch.device("cuda")

# A bar per loaded model would fill the logs.
logging.disable_progress_bar()  # type: ignore[no-untyped-call]


def pick_device() -> torch.device:
    """The GPU of this process (`kd.gpus` leases it, a rank has its own), or the CPU.

    A stage asks before it makes its record: what is hashed of the environment names a GPU that is
    in use, and must not change while a stage runs.

    Raises:
        ModelError: there is a GPU, and torch cannot use it.
    """
    told_off = os.environ.get("KD_DEVICE") == "cpu"
    if torch.cuda.is_available() and not told_off:
        torch.cuda.init()  # type: ignore[no-untyped-call]
        rank = int(os.environ.get("LOCAL_RANK", "0"))
        return torch.device("cuda", rank % torch.cuda.device_count()) if rank else _CUDA
    if os.environ.get(VISIBLE, "-1") not in ("", "-1") and not told_off:
        raise ModelError(
            f"this job has GPU {os.environ[VISIBLE]}, but this build of torch "
            f"({torch.__version__}) cannot use it. Install one that can (docs/install.md), or say "
            "that the CPU is meant: --gpus 0, with Snakemake --resources gpu=0, or KD_DEVICE=cpu"
        )
    return torch.device("cpu")


def load_model(
    folder: Path, base: Path | None = None, placement: Placement | None = None
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Load model (float32, evaluation mode, on `pick_device()`) and tokenizer.

    Adapters in `folder` are merged into the model in `base`, whose they must be. `placement`
    asks for another number format, device or attention.

    Raises:
        ModelError: the folder is missing, incomplete, or holds no safetensors; the placement is
            not to be had here.
    """
    if is_adapter(folder):
        model, tokenizer = load_model(require_base(folder, base), placement=placement)
        return merge_adapters(model, folder), tokenizer
    if not (folder / "config.json").is_file():
        raise ModelError(
            f"{folder}: no model here (config.json is missing). Train it with `kd pretrain`, or "
            "give a folder in the hub's format."
        )
    try:
        # Where nothing is said, the library may ask at the keyboard whether to run a model's code.
        config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        kind = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM
        architecture: type = kind._model_mapping.get(type(config), kind)  # type: ignore[assignment]
        device = pick_device()
        arguments = loading_arguments(placement, device, architecture)
        model, found = kind.from_pretrained(  # type: ignore[misc]  # a pair, as asked for
            folder,
            local_files_only=True,
            use_safetensors=True,
            trust_remote_code=False,
            output_loading_info=True,
            **arguments,
        )
        if "device_map" not in arguments:
            model.to(device)
        tokenizer = AutoTokenizer.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False
        )
    except torch.OutOfMemoryError:
        raise ModelError(f"{folder}: out of memory while it was loaded. {LESS_MEMORY}") from None
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        cause = " ".join(str(error).split())[:200]
        raise ModelError(f"{folder}: the model cannot be loaded ({cause}).") from None
    _require_all(folder, found["missing_keys"])
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    tokenizer.padding_side = "left"
    loaded: PreTrainedModel = model.eval()
    if "device_map" in arguments:
        say_offloaded(loaded)
    return loaded, tokenizer


def _require_all(folder: Path, missing: Collection[str]) -> None:
    """Refuse weights that the library would have drawn at random."""
    if missing:
        raise ModelError(
            f"{folder}: {len(missing)} of the model's weights are not in its files (first: "
            f"{min(missing)}). It is another kind of model, or incomplete: correct its 'repo', "
            "'revision' or 'path'."
        )
