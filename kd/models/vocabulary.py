"""What the tokens of a vocabulary mean, so that two vocabularies can be compared.

Tokenizers mark the same text differently: 'Ġthe', '▁the' and 'the' (as against '##the') all
stand for ' the'. Here every token has the text that it contributes, without marks.
"""

import json
import re
from collections.abc import Callable
from typing import Any

import torch
from tokenizers import decoders
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from kd.models.tokenizers import CONTINUATION, METASPACE

ROLES = ("pad_token_id", "bos_token_id", "eos_token_id", "unk_token_id")

_BYTE = re.compile(r"<0x([0-9A-F]{2})>")
_BYTE_LEVEL = decoders.ByteLevel()
_UNDECODABLE = "\N{REPLACEMENT CHARACTER}"


def token_texts(tokenizer: PreTrainedTokenizerBase, width: int) -> list[str | None]:
    """The text that each token contributes, for the ids below `width`.

    None stands for special tokens, for bytes that are no text on their own, and for ids of a
    model's output that the tokenizer does not use. The marks are read off the tokenizer's
    decoder:

    - byte level ('Ġ'): characters stand for bytes, which are read as UTF-8;
    - metaspace ('▁'): it is a space. '<0x0A>' is a byte;
    - WordPiece ('##'): a piece with the mark continues a word. One without begins a word, and
      a space is put before it if its first character is a letter or a digit, because words
      mostly follow a space, which WordPiece drops; punctuation and line breaks have none.

    Tokens that were added to a vocabulary are their own text.
    """
    resolve = _resolver(tokenizer)
    added = tokenizer.added_tokens_decoder
    special = set(tokenizer.all_special_ids)
    special |= {number for number, token in added.items() if token.special}
    texts: list[str | None] = [None] * width
    for piece, number in tokenizer.get_vocab().items():
        if number < width and number not in special:
            texts[number] = piece if number in added else resolve(piece)
    return texts


def common_embeddings(
    student: PreTrainedTokenizerBase,
    teacher: PreTrainedTokenizerBase,
    weight: Tensor,
    *,
    width: int,
) -> tuple[Tensor, Tensor]:
    """Embeddings of both vocabularies in the space of the teacher's input embeddings.

    A student's token is represented by the teacher's token of the same text (of several, the
    first), or, where there is none, by the mean of the embeddings of the teacher's pieces of
    that text. Special tokens go by their role (padding, begin, end, unknown). What has
    neither text nor role is represented by the mean over the teacher's vocabulary.

    Args:
        student: its tokenizer.
        teacher: its tokenizer.
        weight: the teacher's input embeddings, [Vt, D].
        width: Vs, the size of the student's output.

    Returns:
        [Vs, D] and [Vt, D] in float32, without gradient; the second are the teacher's own.
    """
    own = weight.detach().float()
    pieces = _pieces(student, teacher, width, len(weight))
    counts = torch.tensor([len(ids) for ids in pieces], device=own.device)
    flat = torch.tensor([number for ids in pieces for number in ids], device=own.device)
    rows = torch.repeat_interleave(torch.arange(width, device=own.device), counts)
    total = own.new_zeros(width, own.shape[1]).index_add(0, rows, own[flat.long()])
    unknown = (counts == 0)[:, None]
    return torch.where(unknown, own.mean(dim=0), total / counts.clamp(min=1)[:, None]), own


def _pieces(
    student: PreTrainedTokenizerBase, teacher: PreTrainedTokenizerBase, width: int, limit: int
) -> list[list[int]]:
    """The teacher's tokens, below `limit`, that stand for each of the student's."""
    numbered = reversed(list(enumerate(token_texts(teacher, limit))))
    known = {text: [number] for number, text in numbered if text}
    texts = token_texts(student, width)
    new = sorted({text for text in texts if text and text not in known})
    if new:
        known |= zip(new, teacher(new, add_special_tokens=False)["input_ids"], strict=True)
    pieces = [known[text] if text else [] for text in texts]
    for role in ROLES:
        own, other = getattr(student, role), getattr(teacher, role)
        if own is not None and other is not None:
            pieces[own] = [other]
    return pieces


def _resolver(tokenizer: PreTrainedTokenizerBase) -> Callable[[str], str | None]:
    """How the marks of a tokenizer's vocabulary become text."""
    kinds = _kinds(json.loads(tokenizer.backend_tokenizer.to_str())["decoder"])
    if "ByteLevel" in kinds:
        return _from_bytes
    if "WordPiece" in kinds:
        return _from_wordpiece
    return _from_metaspace


def _kinds(decoder: dict[str, Any] | None) -> set[str]:
    """Types of a decoder and of those that it is made of."""
    if decoder is None:
        return set()
    return {decoder["type"]}.union(*map(_kinds, decoder.get("decoders", [])))


def _from_bytes(piece: str) -> str | None:
    text = _BYTE_LEVEL.decode([piece])
    return None if _UNDECODABLE in text else text


def _from_metaspace(piece: str) -> str | None:
    byte = _BYTE.fullmatch(piece)
    if byte is None:
        return piece.replace(METASPACE, " ")
    code = int(byte[1], 16)
    return chr(code) if code < 0x80 else None


def _from_wordpiece(piece: str) -> str:
    if piece.startswith(CONTINUATION) and piece != CONTINUATION:
        return piece.removeprefix(CONTINUATION)
    return f" {piece}" if piece[:1].isalnum() else piece
