"""Weights that exist only as a pickle, written as safetensors.

`torch.load` reads them with `weights_only`: its unpickler makes tensors and plain containers, and
refuses whatever else a pickle may ask for.
"""

import pickle
from pathlib import Path
from tempfile import TemporaryDirectory

from kd.errors import ModelError
from kd.hub.snapshots import Snapshot


def convert_pickle(snapshot: Snapshot, out: Path) -> None:
    """Write the weights of `snapshot` into the folder `out` as safetensors.

    Tied weights are written once, in the precision that the pickle has.

    Raises:
        ModelError: the pickle holds something else than weights, or not this model's.
    """
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM

    try:
        config = AutoConfig.from_pretrained(
            snapshot.folder, local_files_only=True, trust_remote_code=False
        )
        kind = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM
        model, loading = kind.from_pretrained(  # type: ignore[misc]  # a pair, as asked for
            snapshot.folder,
            local_files_only=True,
            use_safetensors=False,
            weights_only=True,
            trust_remote_code=False,
            dtype="auto",
            output_loading_info=True,
        )
    except (OSError, ValueError, KeyError, RuntimeError, pickle.UnpicklingError) as error:
        cause = " ".join(str(error).split())[:200]
        raise ModelError(
            f"{snapshot.repository}: its pickle cannot be converted ({cause}). Name a revision "
            "with safetensors, or another model."
        ) from None
    absent = sorted(loading["missing_keys"])
    if absent:  # the library would draw them at random
        raise ModelError(
            f"{snapshot.repository}: its pickle lacks {len(absent)} of the model's weights (first: "
            f"{absent[0]}). Name another revision, or another model."
        )
    with TemporaryDirectory(dir=out.parent) as scratch:
        model.save_pretrained(scratch)
        for file in sorted(Path(scratch).glob("model*.safetensors*")):
            file.rename(out / file.name)
