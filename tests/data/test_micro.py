"""The micro world: reproducible, disjoint, and with answers that follow from the context."""

import re
from collections import Counter

import pytest

from kd.data.micro import SCENE_ROWS, SPLIT_SLOTS, TASKS, generate
from kd.errors import DataError

WORLDS = sorted(TASKS)


@pytest.mark.parametrize("world", WORLDS)
def test_same_seed_same_rows_and_more_rows_extend_fewer(world):
    assert generate(world, "train", 20, seed=3)[:8] == generate(world, "train", 8, seed=3)


@pytest.mark.parametrize("world", WORLDS)
def test_another_seed_gives_other_rows(world):
    first, second = generate(world, "test", 10, seed=0), generate(world, "test", 10, seed=1)
    assert all(a.context != b.context for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize("world", WORLDS)
def test_no_context_stands_in_two_splits(world):
    splits = {split: generate(world, split, 150, seed=0) for split in SPLIT_SLOTS}
    contexts = Counter(c for rows in splits.values() for c in {row.context for row in rows})
    ids = [row.id for rows in splits.values() for row in rows]
    assert max(contexts.values()) == 1
    assert len(set(ids)) == len(ids)


@pytest.mark.parametrize("world", sorted(set(WORLDS) - {"dialogsum"}))
def test_pretraining_rows_come_in_scenes_with_one_context_and_different_questions(world):
    rows = generate(world, "pretraining", 5 * SCENE_ROWS, seed=0)
    for start in range(0, len(rows), SCENE_ROWS):
        scene = rows[start : start + SCENE_ROWS]
        assert len({row.context for row in scene}) == 1
        assert len({row.question for row in scene}) == SCENE_ROWS


@pytest.mark.parametrize("world", ["squad", "qed"])
def test_extractive_answers_stand_in_the_context(world):
    for row in generate(world, "test", 100, seed=0):
        assert row.answers[0] in row.context


@pytest.mark.parametrize("world", ["squad", "fairytaleqa", "pubmedqa", "dialogsum"])
def test_questions_with_one_wording_have_answers_with_several(world):
    """Without that, a teacher could be certain and its distribution would carry nothing."""
    rows = generate(world, "pretraining", 400, seed=0)
    openings = Counter(" ".join(row.answers[0].split()[:1]).lower() for row in rows)
    assert len(openings) > 10


def test_only_test_dialogues_carry_several_references():
    for world in WORLDS:
        for split in ("train", "test"):
            several = (world, split) == ("dialogsum", "test")
            assert {len(row.answers) for row in generate(world, split, 20, 0)} == {
                3 if several else 1
            }


def test_only_the_title_names_the_building():
    for row in generate("qed", "test", 50, seed=0):
        assert row.title.removeprefix("The ") in row.question
        assert row.title.removeprefix("The ") not in row.context


@pytest.mark.parametrize(
    ("world", "split", "hint"), [("squat", "train", "'squad'"), ("squad", "tset", "'test'")]
)
def test_an_unknown_name_is_refused_with_the_nearest_one(world, split, hint):
    with pytest.raises(DataError, match=hint):
        generate(world, split, 1, seed=0)


def test_other_words_stand_in_no_dataset_of_the_paper():
    """Shifted in vocabulary: none of its answers, which quote the context, can be known."""
    known = {
        word
        for world in ("squad", "qed", "fairytaleqa", "pubmedqa", "dialogsum")
        for row in generate(world, "pretraining", 400, seed=0)
        for word in re.findall(r"\w+", f"{row.title} {row.context} {row.question}")
    }
    rows = generate("squad_words", "test", 200, seed=0)
    said = {word for row in rows for word in re.findall(r"\w+", row.answers[0])} - {"near"}
    assert len(said) > 80 and not said & known


def test_another_style_is_about_known_words_in_unknown_sentences():
    rows = generate("squad", "pretraining", 400, seed=0)
    frames = {re.sub(r"[A-Z]\w+", "X", row.question) for row in rows}
    for row in generate("squad_style", "test", 100, seed=0):
        assert row.answers[0] in row.context
        assert re.sub(r"[A-Z]\w+", "X", row.question) not in frames
