"""Students that transformers loads, in place of the small files of the experiment made by hand."""

import hashlib
from functools import cache
from pathlib import Path
from typing import Any

from kd.data.micro import generate
from kd.experiment.models import TokenizerSpec
from kd.models.architectures import Vocabulary, build_model
from kd.models.tokenizers import train_tokenizer


@cache
def tokenizer():
    rows = generate("squad", "pretraining", 16, 0)
    texts = [f"{row.context} {row.question} {' '.join(row.answers)}" for row in rows]
    return train_tokenizer(TokenizerSpec(algorithm="byte_bpe", vocabulary=400), texts)


def write_loadable_model(folder: Path, tensors: dict[str, Any]) -> None:
    """An OPT whose weights depend on `tensors`, with its tokenizer."""
    seed = hashlib.sha256(b"".join(value.tobytes() for value in tensors.values())).digest()
    number = int.from_bytes(seed[:4], "big")
    model = build_model("opt", "tiny", Vocabulary.of(tokenizer()), context=64, seed=number)
    model.save_pretrained(folder)
    tokenizer().save_pretrained(folder)
