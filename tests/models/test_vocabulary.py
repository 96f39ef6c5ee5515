"""What tokens mean, in all tokenizer families, and embeddings that two vocabularies share."""

from itertools import product

import pytest
import torch
from tokenizers import Tokenizer, decoders
from tokenizers.models import BPE
from transformers import PreTrainedTokenizerFast

from kd.models.vocabulary import common_embeddings, token_texts
from tests.models.test_tokenizers import ALGORITHMS, TEXTS, TOKENIZERS


def text_ids(tokenizer: PreTrainedTokenizerFast) -> dict[str, int]:
    """The first token of each text."""
    texts = token_texts(tokenizer, len(tokenizer))
    return {text: number for number, text in reversed(list(enumerate(texts))) if text is not None}


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_the_texts_of_an_answers_tokens_are_the_answer(algorithm: str) -> None:
    """WordPiece drops spaces, and its pieces tell where words begin."""
    tokenizer = TOKENIZERS[algorithm]
    texts = token_texts(tokenizer, len(tokenizer))
    for text in TEXTS:
        for line in text.split("\n"):
            ids = tokenizer.encode(f" {line}", add_special_tokens=False)
            if tokenizer.unk_token_id in ids:
                continue
            parts = [texts[number] for number in ids]
            joined = "".join(part for part in parts if part is not None)
            if algorithm == "wordpiece":
                assert joined.replace(" ", "") == line.replace(" ", "")
            elif None not in parts:
                assert joined == f" {line}"


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_special_tokens_and_unused_ids_have_no_text(algorithm: str) -> None:
    tokenizer = TOKENIZERS[algorithm]
    width = len(tokenizer) + 3
    texts = token_texts(tokenizer, width)
    assert len(texts) == width and texts[-3:] == [None] * 3
    assert all(texts[number] is None for number in tokenizer.all_special_ids)
    assert "\n" in texts
    assert not any(mark in text for text in texts if text for mark in ("Ġ", "▁", "##"))
    assert len(token_texts(tokenizer, 50)) == 50


def test_marks_become_spaces() -> None:
    for algorithm, piece, text in (
        ("byte_bpe", "Ġ", " "),
        ("byte_bpe", "Ċ", "\n"),
        ("byte_bpe", "Ã", None),  # a byte that begins a character of two
        ("metaspace_bpe", "▁", " "),
        ("unigram", "▁", " "),
        ("wordpiece", "a", " a"),
        ("wordpiece", "##a", "a"),
        ("wordpiece", ",", ","),
        ("wordpiece", "\n", "\n"),
    ):
        tokenizer = TOKENIZERS[algorithm]
        number = tokenizer.convert_tokens_to_ids(piece)
        assert token_texts(tokenizer, len(tokenizer))[number] == text, (algorithm, piece)


def test_bytes_and_added_tokens_of_a_sentencepiece_vocabulary() -> None:
    """As in Llama: a decoder of several parts, bytes as tokens, tokens that were added."""
    pieces = {"<unk>": 0, "<0x0A>": 1, "<0xC3>": 2, "▁the": 3}
    inner = Tokenizer(BPE(pieces, [], unk_token="<unk>", byte_fallback=True))
    inner.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=inner, unk_token="<unk>")
    tokenizer.add_tokens(["▁▁"])
    tokenizer.add_special_tokens({"additional_special_tokens": ["<extra>"]})
    assert token_texts(tokenizer, 6) == [None, "\n", None, " the", "▁▁", None]


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_identical_tokenizers_have_identical_embeddings(algorithm: str) -> None:
    tokenizer = TOKENIZERS[algorithm]
    weight = torch.randn(len(tokenizer) + 2, 5, generator=torch.Generator().manual_seed(0))
    own, other = common_embeddings(tokenizer, tokenizer, weight, width=len(tokenizer))
    assert torch.equal(other, weight) and own.shape == (len(tokenizer), 5)
    known = sorted({*text_ids(tokenizer).values(), *tokenizer.all_special_ids})
    torch.testing.assert_close(own[known], weight[known], rtol=0, atol=0)


@pytest.mark.parametrize(("student", "teacher"), product(ALGORITHMS, ALGORITHMS))
def test_common_texts_have_the_teachers_embeddings(student: str, teacher: str) -> None:
    sides = TOKENIZERS[student], TOKENIZERS[teacher]
    weight = torch.randn(len(sides[1]), 4, generator=torch.Generator().manual_seed(0))
    own, other = common_embeddings(*sides, weight, width=len(sides[0]) + 1)
    texts = [text_ids(side) for side in sides]
    both = sorted(set(texts[0]) & set(texts[1]))
    assert both
    rows = [texts[0][text] for text in both], [texts[1][text] for text in both]
    torch.testing.assert_close(own[rows[0]], other[rows[1]], rtol=0, atol=0)
    torch.testing.assert_close(own[sides[0].eos_token_id], other[sides[1].eos_token_id])
    torch.testing.assert_close(own[-1], weight.mean(0))  # no token at all


def test_other_texts_have_the_mean_of_their_pieces() -> None:
    student, teacher = TOKENIZERS["unigram"], TOKENIZERS["metaspace_bpe"]
    weight = torch.randn(len(teacher), 4, generator=torch.Generator().manual_seed(0))
    own, _ = common_embeddings(student, teacher, weight, width=len(student))
    known = text_ids(teacher)
    new = {text: number for text, number in text_ids(student).items() if text not in known}
    assert new
    for text, number in new.items():
        pieces = teacher.encode(text, add_special_tokens=False)
        assert len(pieces) > 1
        torch.testing.assert_close(own[number], weight[pieces].mean(0))


def test_embeddings_are_float32_without_gradient() -> None:
    tokenizer = TOKENIZERS["unigram"]
    weight = torch.randn(len(tokenizer), 4, dtype=torch.bfloat16, requires_grad=True)
    for side in common_embeddings(tokenizer, tokenizer, weight, width=len(tokenizer)):
        assert side.dtype == torch.float32 and not side.requires_grad
