"""Small models of really different architectures, built from configurations alone.

Decoders: Llama and Mistral (rotary positions, gated MLP, RMS norm), OPT (learned
positions, ReLU), GPT-NeoX, which Pythia uses (partly rotary, parallel residual) and
Bloom (ALiBi). Encoder-decoder: T5 (relative position buckets). No dropout anywhere,
so that training is deterministic on any number of threads.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from kd.errors import ModelError, nearest


@dataclass(frozen=True)
class Shape:
    """Width of the residual stream, layers (of each stack, for T5) and attention heads."""

    width: int
    depth: int
    heads: int

    @property
    def scale(self) -> float:
        """Initial standard deviation; the usual 0.02 is meant for far wider models."""
        return float(self.width**-0.5)


SIZES = {
    "tiny": Shape(width=48, depth=2, heads=4),
    "small": Shape(width=64, depth=2, heads=4),
    "medium": Shape(width=96, depth=3, heads=4),
    "large": Shape(width=128, depth=4, heads=4),
}


@dataclass(frozen=True)
class Vocabulary:
    """What a model must know of its tokenizer."""

    size: int
    pad: int
    eos: int
    bos: int | None

    @classmethod
    def of(cls, tokenizer: PreTrainedTokenizerBase) -> "Vocabulary":
        """Read size and special tokens off `tokenizer`."""
        return cls(
            size=len(tokenizer),
            pad=tokenizer.pad_token_id,
            eos=tokenizer.eos_token_id,
            bos=tokenizer.bos_token_id,
        )


def build_model(
    architecture: str, size: str, vocabulary: Vocabulary, *, context: int, seed: int
) -> PreTrainedModel:
    """A freshly initialised model in float32 that reads up to `context` tokens.

    Raises:
        ModelError: the architecture or the size has no definition here.
    """
    if architecture not in SETTINGS:
        raise ModelError(
            f"No architecture is called '{architecture}'. {nearest(architecture, SETTINGS)}"
        )
    if size not in SIZES:
        raise ModelError(f"No model size is called '{size}'. {nearest(size, SIZES)}")
    settings = SETTINGS[architecture](SIZES[size], context)
    special = {"pad_token_id": vocabulary.pad, "eos_token_id": vocabulary.eos}
    if vocabulary.bos is not None:
        special["bos_token_id"] = vocabulary.bos
    if architecture in ENCODER_DECODERS:
        special["decoder_start_token_id"] = vocabulary.pad
    config = AutoConfig.for_model(architecture, vocab_size=vocabulary.size, **special, **settings)
    torch.manual_seed(seed)
    kind = AutoModelForSeq2SeqLM if architecture in ENCODER_DECODERS else AutoModelForCausalLM
    model = kind.from_config(config, dtype=torch.float32)  # type: ignore[no-untyped-call]
    assert isinstance(model, PreTrainedModel)
    return model


def _llama(shape: Shape, context: int) -> dict[str, Any]:
    return {
        "hidden_size": shape.width,
        "intermediate_size": shape.width * 8 // 3,
        "num_hidden_layers": shape.depth,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.heads,
        "max_position_embeddings": context,
        "initializer_range": shape.scale,
        "tie_word_embeddings": True,
    }


def _mistral(shape: Shape, context: int) -> dict[str, Any]:
    # Grouped queries and a sliding window are what sets Mistral apart from Llama.
    window = max(64, context // 2)
    grouped = {"num_key_value_heads": shape.heads // 2, "sliding_window": window}
    return _llama(shape, context) | grouped


def _opt(shape: Shape, context: int) -> dict[str, Any]:
    return {
        "hidden_size": shape.width,
        "word_embed_proj_dim": shape.width,
        "ffn_dim": 4 * shape.width,
        "num_hidden_layers": shape.depth,
        "num_attention_heads": shape.heads,
        "max_position_embeddings": context,
        "init_std": shape.scale,
        "dropout": 0.0,
        "attention_dropout": 0.0,
    }


def _gpt_neox(shape: Shape, context: int) -> dict[str, Any]:
    return {
        "hidden_size": shape.width,
        "intermediate_size": 4 * shape.width,
        "num_hidden_layers": shape.depth,
        "num_attention_heads": shape.heads,
        "max_position_embeddings": context,
        "initializer_range": shape.scale,
        "attention_dropout": 0.0,
        "hidden_dropout": 0.0,
    }


def _bloom(shape: Shape, context: int) -> dict[str, Any]:
    return {
        "hidden_size": shape.width,
        "n_layer": shape.depth,
        "n_head": shape.heads,
        "seq_length": context,
        "initializer_range": shape.scale,
        "hidden_dropout": 0.0,
        "attention_dropout": 0.0,
    }


def _t5(shape: Shape, context: int) -> dict[str, Any]:
    # Embeddings are tied, which scales the output down: mT5's untied ones, at the same
    # initialisation, start at a loss near 50 instead of ln(vocabulary).
    return {
        "d_model": shape.width,
        "d_kv": shape.width // shape.heads,
        "d_ff": 4 * shape.width,
        "num_layers": shape.depth,
        "num_decoder_layers": shape.depth,
        "num_heads": shape.heads,
        "n_positions": context,
        "dropout_rate": 0.0,
        "tie_word_embeddings": True,
    }


SETTINGS: dict[str, Callable[[Shape, int], dict[str, Any]]] = {
    "llama": _llama,
    "mistral": _mistral,
    "opt": _opt,
    "gpt_neox": _gpt_neox,
    "bloom": _bloom,
    "t5": _t5,
}
ENCODER_DECODERS = {"t5"}
