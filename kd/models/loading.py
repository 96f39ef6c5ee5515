"""Loading a model folder in the hub's own format: config, safetensors, tokenizer.

Nothing is fetched and no code of a model is run: a folder is all that a stage ever sees.
"""

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
from kd.models.adapters import is_adapter, merge_adapters, require_base
from kd.models.placement import loading_arguments

# A bar per loaded model would fill the logs.
logging.disable_progress_bar()  # type: ignore[no-untyped-call]


def pick_device() -> torch.device:
    """The first CUDA device that is visible, or the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


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
    device = pick_device()
    arguments = loading_arguments(placement, device)
    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True)
        kind = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM
        model = kind.from_pretrained(
            folder,
            local_files_only=True,
            use_safetensors=True,
            trust_remote_code=False,
            **arguments,
        )
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        cause = " ".join(str(error).split())[:200]
        raise ModelError(f"{folder}: the model cannot be loaded ({cause}).") from None
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    tokenizer.padding_side = "left"
    loaded: PreTrainedModel = model.eval()
    if "device_map" not in arguments:
        loaded.to(device)  # type: ignore[arg-type]  # the library's own annotation is wrong
    return loaded, tokenizer
