"""Token overlap and exact match, against values worked out by hand."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kd.evaluation.overlap import best_overlap, exact_match, normalise, token_overlap

words = st.lists(st.sampled_from("the a fox red Red, an. blue 7".split()), max_size=8).map(" ".join)
texts = st.one_of(words, st.text(max_size=30))


@pytest.mark.parametrize(
    ("prediction", "reference", "f1", "precision", "recall"),
    [
        ("the red fox", "a fox", 2 / 3, 1 / 2, 1),  # articles do not count
        ("fox fox fox", "fox red fox", 2 / 3, 2 / 3, 2 / 3),  # repeated tokens count once each
        ("U.S. 7,000", "us 7000", 1, 1, 1),  # punctuation goes before splitting
        ("well-known", "well known", 0, 0, 0),  # and joins what it separated
        ("another theatre", "other theatre", 1 / 2, 1 / 2, 1 / 2),  # articles only as whole words
        ("in the\n red   house", "in red house", 1, 1, 1),
        ("red", "blue", 0, 0, 0),
        ("", "blue", 0, 0, 0),
        ("The.", "", 1, 1, 1),  # nothing is left of either
    ],
)
def test_overlap_of_a_pair(prediction, reference, f1, precision, recall):
    """Worked out by hand."""
    assert token_overlap(prediction, reference) == pytest.approx((f1, precision, recall))


def test_all_three_values_come_from_the_reference_with_the_best_f1():
    """Separate maxima would give a precision of 1/2 here, from the second reference."""
    best = best_overlap(
        "red fox runs home", ["fox", "fox runs over every green hill with red ears"]
    )
    assert best == pytest.approx((6 / 13, 3 / 4, 1 / 3))
    assert best_overlap("red fox", ["fox", "blue red fox"]).f1 == pytest.approx(4 / 5)


@pytest.mark.parametrize(
    ("prediction", "references", "expected"),
    [
        ("The  Fox!", ["a fox"], 1),
        ("fox", ["foxes"], 0),
        ("red fox", ["fox red"], 0),  # order matters, unlike in F1
        ("seven", ["7", "Seven."], 1),
        ("", ["fox"], 0),
        ("no response", ["fox"], 0),  # the ULD authors' script counts this one as right
    ],
)
def test_exact_match(prediction, references, expected):
    """Worked out by hand."""
    assert exact_match(prediction, references) == expected


@given(texts)
def test_a_text_agrees_fully_with_itself(text):
    """Also one that normalises to nothing."""
    assert best_overlap(text, [text]) == (1, 1, 1)
    assert exact_match(text, [text]) == 1


@given(texts, st.lists(texts, min_size=1, max_size=4))
def test_bounds_and_the_order_of_references(prediction, references):
    """Scores lie in [0, 1], an exact match has F1 1, and references have no order."""
    overlap = best_overlap(prediction, references)
    assert all(0 <= value <= 1 for value in overlap)
    assert overlap == best_overlap(prediction, references[::-1])
    assert exact_match(prediction, references) <= overlap.f1


@given(texts, texts)
def test_precision_and_recall_are_each_others_mirror(one, other):
    """Swapping prediction and reference swaps them and leaves F1."""
    there, back = token_overlap(one, other), token_overlap(other, one)
    assert (there.precision, there.recall) == (back.recall, back.precision)
    assert there.f1 == pytest.approx(back.f1)


@given(texts)
def test_normalising_twice_changes_nothing_more(text):
    """Dropping an article leaves a space, which keeps its neighbours apart."""
    assert normalise(normalise(text)) == normalise(text)
