"""Tokenizers of all four families: deterministic, lossless, and safe on unknown text."""

import subprocess
import sys

import pytest

from kd.data.micro import TASKS, generate
from kd.data.prompts import build_prompt
from kd.errors import ModelError
from kd.experiment.models import TokenizerSpec
from kd.models.encoding import encode_answer, encode_prompt
from kd.models.tokenizers import TRAINERS, train_tokenizer

ALGORITHMS = sorted(TRAINERS)
ROWS = [row for world in sorted(TASKS) for row in generate(world, "train", 30, seed=0)]
TEXTS = [f"{build_prompt(row, [])} {row.answers[0]}\n" for row in ROWS]


def trained(algorithm: str, vocabulary: int = 500):
    return train_tokenizer(TokenizerSpec(algorithm=algorithm, vocabulary=vocabulary), TEXTS)


TOKENIZERS = {algorithm: trained(algorithm) for algorithm in ALGORITHMS}


def without_spaces(text: str) -> str:
    return text.replace(" ", "")


def test_training_again_in_another_process_gives_the_same_bytes():
    code = (
        "from tests.models.test_tokenizers import TOKENIZERS;"
        "print([t.backend_tokenizer.to_str() for t in TOKENIZERS.values()], end='')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == str([t.backend_tokenizer.to_str() for t in TOKENIZERS.values()])


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_decoding_gives_the_text_back_but_for_spaces(algorithm):
    tokenizer = TOKENIZERS[algorithm]
    for text in TEXTS:
        decoded = tokenizer.decode(tokenizer.encode(text, add_special_tokens=False))
        assert without_spaces(decoded) == without_spaces(text)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_newline_is_one_token_of_its_own(algorithm):
    tokenizer = TOKENIZERS[algorithm]
    (newline,) = tokenizer.encode("\n", add_special_tokens=False)
    ids = tokenizer.encode("Oslo.\nQuestion: x", add_special_tokens=False)
    assert ids.count(newline) == 1
    assert tokenizer.decode(ids[: ids.index(newline)]).strip() == "Oslo."


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_prompt_and_answer_encoded_apart_join_to_the_whole(algorithm):
    """What a student reads at test time is, token for token, what it was trained on."""
    tokenizer = TOKENIZERS[algorithm]
    shot, row = ROWS[0], ROWS[1]
    apart = encode_prompt(tokenizer, build_prompt(shot, []), False)
    apart += encode_answer(tokenizer, shot.answers[0])
    apart += tokenizer.encode("\n\n", add_special_tokens=False)
    apart += tokenizer.encode(build_prompt(row, []), add_special_tokens=False)
    assert encode_prompt(tokenizer, build_prompt(row, [shot]), False) == apart


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_characters_never_seen_do_no_harm(algorithm):
    tokenizer = TOKENIZERS[algorithm]
    ids = tokenizer.encode(
        "Kublai 忽必烈 was — “here”\tand\u00a0there \u0001", add_special_tokens=False
    )
    assert ids
    assert max(ids) < len(tokenizer)
    assert None not in ids


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_special_tokens_and_sides(algorithm):
    tokenizer = TOKENIZERS[algorithm]
    assert tokenizer.padding_side == "left"
    assert tokenizer.pad_token_id != tokenizer.eos_token_id
    assert (tokenizer.bos_token_id is not None) == (algorithm == "metaspace_bpe")
    assert len(tokenizer) <= 500


def test_the_four_families_cut_the_same_text_differently():
    cuts = {tuple(t.tokenize(TEXTS[0].replace("\n", " "))) for t in TOKENIZERS.values()}
    assert len(cuts) == len(ALGORITHMS)


def test_an_unknown_algorithm_is_refused():
    spec = TokenizerSpec.model_construct(algorithm="bytebpe", vocabulary=300)
    with pytest.raises(ModelError, match="'byte_bpe'"):
        train_tokenizer(spec, TEXTS)
