"""Text to token ids, the same way in training, extraction and generation.

Special tokens are added here, explicitly, and nowhere else: what a student is trained
on is, token for token, what it is tested on.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from kd.provenance.canonical import digest

METASPACE = "\u2581"  # SentencePiece's mark of a space


def encode_prompt(
    tokenizer: PreTrainedTokenizerBase, text: str, encoder_decoder: bool
) -> list[int]:
    """Encode a prompt: BOS (where the tokenizer has one) + text, or text + EOS for an encoder."""
    ids: list[int] = tokenizer.encode(text, add_special_tokens=False)
    if encoder_decoder:
        return [*ids, tokenizer.eos_token_id]
    return ids if tokenizer.bos_token_id is None else [tokenizer.bos_token_id, *ids]


def encode_answer(tokenizer: PreTrainedTokenizerBase, answer: str) -> list[int]:
    """Encode an answer as it follows a prompt: a space and the text, without EOS.

    It is encoded apart from the prompt, so that the prompt's tokens do not depend on it.
    """
    ids: list[int] = tokenizer.encode(spaced(tokenizer, answer), add_special_tokens=False)
    return ids


def spaced(tokenizer: PreTrainedTokenizerBase, answer: str) -> str:
    """What is encoded so that the tokens begin with one space: most need to be given it.

    Mistral's normaliser puts one in front of any text. Given another, it would make a token
    of the second that no model writes there, and all tokens after it would be one late.
    """
    normalizer = getattr(getattr(tokenizer, "backend_tokenizer", None), "normalizer", None)
    normal = "" if normalizer is None else normalizer.normalize_str(" a")
    return answer if normal.startswith(2 * METASPACE) else f" {answer}"


def context_length(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> int:
    """Longest sequence, in tokens, that `model` can read: its positions or its tokenizer's limit.

    Models without learned or declared positions (Bloom, T5) are bounded by the tokenizer.
    """
    positions: int | None = getattr(model.config, "max_position_embeddings", None)
    limit: int = tokenizer.model_max_length
    return limit if positions is None else min(positions, limit)


def vocabulary_digest(tokenizer: PreTrainedTokenizerBase) -> str:
    """SHA-256 of the mapping from tokens to ids: equal for tokenizers whose ids mean the same."""
    return digest(tokenizer.get_vocab())


def pad_batch(
    rows: Sequence[Sequence[int]], pad: int, *, left: bool = False
) -> tuple[Tensor, Tensor]:
    """Token ids and attention mask, both [rows, longest], padded on the right or the left."""
    longest = max(len(row) for row in rows)
    ids = torch.full((len(rows), longest), pad, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for index, row in enumerate(rows):
        place = slice(longest - len(row), None) if left else slice(0, len(row))
        ids[index, place] = torch.tensor(row)
        mask[index, place] = 1
    return ids, mask
