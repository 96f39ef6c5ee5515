"""ROUGE is `rouge_score`'s own, unstemmed, the best over the references."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rouge_score.rouge_scorer import RougeScorer

from kd.evaluation.rouge import rouge

KINDS = ("rouge1", "rouge2", "rougeL", "rougeLsum")
texts = st.lists(st.sampled_from("red fox foxes runs home \n".split(" ")), max_size=8).map(" ".join)


def test_values_by_hand():
    """Four of five unigrams, two of four bigrams, no stemming, no best order."""
    prediction, reference = "red fox runs home fast", "fox red runs home today"
    assert rouge("rouge1", prediction, [reference]) == pytest.approx(4 / 5)
    assert rouge("rouge2", prediction, [reference]) == pytest.approx(1 / 4)
    assert rouge("rougeL", prediction, [reference]) == pytest.approx(3 / 5)
    assert rouge("rouge1", "runs", ["running", "run"]) == 0


def test_rouge_lsum_reads_lines_as_sentences():
    """Sentences may change places, which the longest common subsequence forbids."""
    prediction, reference = "red fox\nruns home", "runs home\nred fox"
    assert rouge("rougeLsum", prediction, [reference]) == pytest.approx(1)
    assert rouge("rougeL", prediction, [reference]) == pytest.approx(1 / 2)


@pytest.mark.parametrize("kind", KINDS)
@given(prediction=texts, references=st.lists(texts, min_size=1, max_size=3))
def test_equals_the_best_of_rouge_score(kind, prediction, references):
    """Reference by reference, without an aggregator."""
    scorer = RougeScorer([kind])
    each = [scorer.score(reference, prediction)[kind].fmeasure for reference in references]
    assert rouge(kind, prediction, references) == max(each)
    assert rouge(kind, prediction, references[::-1]) == max(each)
