"""Ends of tokens: bytes of the text, whatever a tokenizer does to it."""

from itertools import combinations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from kd.alignment.chunks import common_ends
from kd.errors import ModelError
from kd.models.encoding import encode_answer
from kd.models.offsets import encode_answer_with_ends
from tests.models.test_tokenizers import ALGORITHMS, TOKENIZERS

# Text as it comes, and text that is hard: line breaks, runs of spaces, accents, wide characters.
HARD = st.lists(
    st.sampled_from(["the", "Oslo", " ", "  ", "\n", "\t", "é", "e\u0301", "忽", "🙂", "."])
)
TEXTS = st.one_of(st.text(max_size=12), HARD.map("".join))


def fast(tokenizer: Tokenizer) -> PreTrainedTokenizerFast:
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>")


def cut(tokenizer, answer: str) -> list[tuple[str, int]]:
    """Tokens with their ends; the text has a space before the answer."""
    ids, ends = encode_answer_with_ends(tokenizer, answer)
    return list(zip(tokenizer.convert_ids_to_tokens(ids), ends, strict=True))


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@given(TEXTS)
@settings(max_examples=40, deadline=None)
def test_ends_never_decrease_and_the_last_is_the_length_of_the_text(algorithm, answer):
    tokenizer = TOKENIZERS[algorithm]
    ids, ends = encode_answer_with_ends(tokenizer, answer)
    assert ids == encode_answer(tokenizer, answer)
    assert ends == sorted(ends)
    assert not ends or ends[-1] == len(f" {answer}".encode())


@given(TEXTS)
@settings(max_examples=40, deadline=None)
def test_bytes_of_byte_level_tokens_are_those_between_their_ends(answer):
    tokenizer = TOKENIZERS["byte_bpe"]
    ids, ends = encode_answer_with_ends(tokenizer, answer)
    text, start = f" {answer}".encode(), 0
    for number, end in zip(ids, ends, strict=True):
        token = tokenizer.convert_ids_to_tokens([number])[0]
        assert len(token) == end - start > 0  # a character of the token for each byte
        decoded = tokenizer.decode([number])
        assert "\ufffd" in decoded or decoded.encode() == text[start:end]
        start = end


@pytest.mark.parametrize("pair", combinations(ALGORITHMS, 2), ids="-".join)
@given(TEXTS)
@settings(max_examples=25, deadline=None)
def test_common_spans_cover_every_token_of_both_sides_once_and_in_order(pair, answer):
    sides = [encode_answer_with_ends(TOKENIZERS[name], answer)[1] for name in pair]
    spans = list(common_ends(*sides))
    for side, (first, last) in zip(sides, ((0, 1), (2, 3)), strict=True):
        covered = [token for span in spans for token in range(span[first], span[last] + 1)]
        assert not all(sides) or covered == list(range(len(side)))
    bytes_of_spans = [sides[0][span[1]] for span in spans]
    assert bytes_of_spans == [sides[1][span[3]] for span in spans]


def test_a_character_that_is_split_ends_at_its_own_bytes():
    tokens = cut(TOKENIZERS["byte_bpe"], "é忽")
    assert [end for _, end in tokens] == [1, 2, 3, 4, 5, 6]


def test_byte_fallback_ends_at_its_own_bytes_beside_text_that_changes():
    vocabulary = ["<unk>", "▁", "a", "▁a", *(f"<0x{byte:02X}>" for byte in range(256))]
    tokenizer = Tokenizer(
        models.BPE(
            {token: i for i, token in enumerate(vocabulary)}, [("▁", "a")], byte_fallback=True
        )
    )
    tokenizer.normalizer = normalizers.Replace("  ", "▁")
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="never")
    assert cut(fast(tokenizer), "é  aé") == [
        ("▁", 1),
        ("<0xC3>", 2),
        ("<0xA9>", 3),
        ("▁a", 6),
        ("<0xC3>", 7),
        ("<0xA9>", 8),
    ]


def test_a_tokenizer_that_puts_a_space_in_front_is_not_given_another():
    vocabulary = {"<unk>": 0, "▁": 1, "a": 2, "▁a": 3}
    tokenizer = Tokenizer(models.BPE(vocabulary, [("▁", "a")], unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    assert cut(fast(tokenizer), "a") == [("▁a", 2)]
    assert cut(fast(tokenizer), "a?a") == [("▁a", 2), ("<unk>", 3), ("a", 4)]
    assert cut(fast(tokenizer), "é a") == [("▁", 1), ("<unk>", 3), ("▁a", 5)]


def test_lost_spaces_and_replaced_characters_belong_to_the_token_that_follows_or_stands_for_them():
    vocabulary = ["<unk>", "cafe", "the", "##s", "x"]
    tokenizer = Tokenizer(
        models.WordPiece({token: i for i, token in enumerate(vocabulary)}, unk_token="<unk>")
    )
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    # 'É' has two bytes; the control character and the last space are dropped.
    assert cut(fast(tokenizer), "The  CAFÉs\u0001 忽 x ") == [
        ("the", 4),
        ("cafe", 11),
        ("##s", 12),
        ("<unk>", 17),
        ("x", 20),
    ]


def test_of_tokens_that_share_a_character_the_last_one_completes_it():
    pieces = [("<unk>", 0.0), *((piece, -2.0) for piece in ("▁a", "1", "2", "⁄"))]
    tokenizer = Tokenizer(models.Unigram(pieces, unk_id=0))
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    assert cut(fast(tokenizer), "a½ a") == [("▁a", 2), ("1", 2), ("⁄", 2), ("2", 4), ("▁a", 6)]


def test_special_tokens_among_the_answers_stand_for_nothing():
    tokenizer = fast(TOKENIZERS["wordpiece"].backend_tokenizer)
    text = "Oslo  is é"
    alone = [end for _, end in cut(tokenizer, text)]

    class Marked:
        """The same tokenizer with an end-of-text token after every encoding."""

        is_fast = True

        def __call__(self, *arguments, **settings):
            encoding = tokenizer(*arguments, **settings)
            encoding["input_ids"].append(tokenizer.vocab["</s>"])
            encoding["offset_mapping"].append((0, 0))
            return encoding

        convert_ids_to_tokens = staticmethod(tokenizer.convert_ids_to_tokens)

    assert [end for _, end in cut(Marked(), text)] == [*alone, alone[-1]]


def test_only_a_slow_tokenizer_that_changes_text_is_refused():
    class Slow:
        is_fast = False

        def __call__(self, text, **settings):
            return {"input_ids": [0]}

        def convert_ids_to_tokens(self, ids):
            return ["▁the"]

    assert cut(Slow(), "the") == [("▁the", 4)]

    with pytest.raises(ModelError, match="Slow changes the text"):
        encode_answer_with_ends(Slow(), "The")
