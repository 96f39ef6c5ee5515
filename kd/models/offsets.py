"""Where the tokens of an answer end, in bytes of its text.

Two tokenizers cut one text differently; bytes are the coordinates that they share. A token's
*end* is the number of bytes of the encoded text (a space and the answer, in UTF-8) that are
complete once it is there, so ends never decrease and the last one is the length of the text.

- A token of bytes (byte-level BPE, byte fallback) ends at its last byte, which may be inside
  a character.
- Text that a tokenizer drops (spaces, control characters) belongs to the token after it, or to
  the last one at the end of the text.
- Characters that it replaces (unknown ones, lower case, compatibility forms) belong to the
  token that stands for them; if several do, to the last of these.
"""

import re
from collections.abc import Iterator, Sequence
from functools import cache
from itertools import accumulate

from tokenizers import pre_tokenizers
from transformers import PreTrainedTokenizerBase

from kd.errors import ModelError
from kd.models.encoding import METASPACE, spaced

BYTE = re.compile("<0x([0-9A-F]{2})>")  # SentencePiece's spelling of a byte

Span = tuple[int, int]


def encode_answer_with_ends(
    tokenizer: PreTrainedTokenizerBase, answer: str
) -> tuple[list[int], list[int]]:
    """The tokens of `kd.models.encoding.encode_answer`, and the byte at which each ends.

    Raises:
        ModelError: a tokenizer that changes the text does not tell which part of it each token
            stands for (it is not a fast one).
    """
    given, text = spaced(tokenizer, answer), f" {answer}"
    encoding = tokenizer(
        given, add_special_tokens=False, return_offsets_mapping=bool(tokenizer.is_fast)
    )
    ids: list[int] = encoding["input_ids"]
    tokens = list(tokenizer.convert_ids_to_tokens(ids))
    ends = _exact_ends(tokens, text.encode())
    if ends is None:
        if not tokenizer.is_fast:
            raise ModelError(
                f"{type(tokenizer).__name__} changes the text that it encodes and does not tell "
                "where its tokens end in it: use the fast version of the tokenizer."
            )
        unseen = len(text) - len(given)  # the space, where the tokenizer puts its own
        ends = [unseen + end for end in _mapped_ends(tokens, encoding["offset_mapping"], given)]
    return ids, ends


def _exact_ends(tokens: Sequence[str], text: bytes) -> list[int] | None:
    """Ends of tokens whose own bytes add up to `text`; None if they do not."""
    for read in (_byte_level, _plain):
        pieces = [read(token) for token in tokens]
        if all(piece is not None for piece in pieces):
            known = [piece for piece in pieces if piece is not None]
            if b"".join(known) == text:
                return list(accumulate(map(len, known)))
    return None


def _byte_level(token: str) -> bytes | None:
    """The bytes of a token of byte-level BPE, which spells every byte as one character."""
    letters = _byte_letters()
    return bytes(letters[char] for char in token) if all(c in letters for c in token) else None


@cache
def _byte_letters() -> dict[str, int]:
    """The byte that each character of byte-level BPE's alphabet stands for.

    GPT-2's rule: printable Latin-1 characters stand for themselves; the other bytes take, in
    their order, the characters from 256 on.
    """
    alphabet = set(pre_tokenizers.ByteLevel.alphabet())
    letters = {chr(byte): byte for byte in range(256) if chr(byte) in alphabet}
    others = [byte for byte in range(256) if chr(byte) not in alphabet]
    return letters | {chr(256 + place): byte for place, byte in enumerate(others)}


def _plain(token: str) -> bytes:
    """The bytes of a token that is text, with SentencePiece's mark of a space and its bytes."""
    byte = BYTE.fullmatch(token)
    return bytes.fromhex(byte[1]) if byte else token.replace(METASPACE, " ").encode()


def _mapped_ends(tokens: Sequence[str], offsets: Sequence[Span], text: str) -> list[int]:
    """Ends by the characters from which, as the tokenizer says, each token was made."""
    size = [0, *accumulate(len(char.encode()) for char in text)]  # bytes before each character
    offsets = _in_place(offsets)
    ends: list[int] = []
    for first, last in _sharing(offsets):
        start, stop = offsets[first][0], max(end for _, end in offsets[first : last + 1])
        inside = _exact_ends(tokens[first : last + 1], text[start:stop].encode())
        if inside is None:  # complete is what no later token of the group still adds to
            begins = [min(begin, stop) for begin, _ in offsets[first + 1 : last + 1]]
            ends += [size[begin] for begin in begins] + [size[stop]]
        else:
            ends += [size[start] + end for end in inside]
    monotone = list(accumulate(ends, max))
    return monotone[:-1] + [size[-1]] * bool(monotone)


def _in_place(offsets: Sequence[Span]) -> list[Span]:
    """Offsets in which tokens that stand for nothing are where those before them end."""
    placed: list[Span] = []
    reach = 0
    for begin, end in offsets:
        placed.append((begin, end) if begin < end else (reach, reach))
        reach = max(reach, end)
    return placed


def _sharing(offsets: Sequence[Span]) -> Iterator[Span]:
    """First and last of every group of tokens that overlap: the bounds of the groups."""
    first, reach = 0, 0
    for place, (begin, end) in enumerate(offsets):
        if place > first and begin >= reach:
            yield first, place - 1
            first, reach = place, 0
        reach = max(reach, end)
    if offsets:
        yield first, len(offsets) - 1
