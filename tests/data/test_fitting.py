"""Prompts that are too long lose examples, then the end of their context, and say so."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kd.data.fitting import Shortened, fitting_prompts, shortening_note, shortening_noted
from kd.data.prompts import build_prompt
from kd.data.rows import Row
from kd.errors import ArtifactError


def row(name: str, context: str) -> Row:
    return Row(id=name, task="qa", context=context, question=f"{name}?", answers=["Oslo"])


SHOTS = [row("first", "one " * 10), row("second", "two " * 10)]
ASKED = row("asked", "abcdefghij" * 5)
LENGTHS = {count: len(build_prompt(ASKED, SHOTS[:count])) for count in (0, 1, 2)}


def fitted(limit: int) -> tuple[str, Shortened | None]:
    prompts, kept = fitting_prompts([ASKED], SHOTS, build_prompt, lambda text: len(text) <= limit)
    return prompts[0], kept.get("asked")


def test_a_prompt_that_fits_stays_whole_and_is_not_noted():
    assert fitted(LENGTHS[2]) == (build_prompt(ASKED, SHOTS), None)
    assert shortening_note({}) == {}


def test_the_last_example_goes_first():
    prompt, kept = fitted(LENGTHS[2] - 1)
    assert prompt == build_prompt(ASKED, SHOTS[:1])
    assert kept == Shortened(shots=1)
    assert fitted(LENGTHS[1] - 1)[1] == Shortened(shots=0)


def test_then_the_context_loses_its_end_and_the_question_stays():
    prompt, kept = fitted(LENGTHS[0] - 3)
    assert kept == Shortened(shots=0, characters=47)
    assert len(prompt) == LENGTHS[0] - 3
    assert "Question: asked?\nAnswer:" in prompt
    assert ASKED.context[:47] + "\n" in prompt


def test_what_fits_in_no_way_is_left_for_generation_to_refuse():
    assert fitted(5) == (build_prompt(ASKED, SHOTS), None)


@settings(max_examples=50)
@given(limit=st.integers(0, 300))
def test_the_note_is_enough_to_write_the_prompt_again(limit: int):
    prompts, kept = fitting_prompts(
        [*SHOTS, ASKED], SHOTS, build_prompt, lambda text: len(text) <= limit
    )
    noted = shortening_noted(shortening_note(kept))
    whole = Shortened(shots=2)
    again = [noted.get(one.id, whole).write(one, SHOTS, build_prompt) for one in (*SHOTS, ASKED)]
    assert again == prompts


def test_no_more_than_needed_is_lost_where_tokens_are_no_characters():
    """Here a cut word costs more than a whole one, as with real tokenizers."""

    def tokens(text: str) -> int:
        return sum(1 if word in {"alpha", "beta"} else len(word) for word in text.split())

    asked = row("asked", "alpha beta " * 4)
    prompts, kept = fitting_prompts([asked], [], build_prompt, lambda text: tokens(text) <= 32)
    assert tokens(build_prompt(asked, [])) > 32
    assert tokens(prompts[0]) <= 32
    assert kept["asked"].characters


def test_a_malformed_note_is_refused():
    with pytest.raises(ArtifactError, match="'shortened' is malformed"):
        shortening_noted({"shortened": {"a": {"shots": "two"}}})
