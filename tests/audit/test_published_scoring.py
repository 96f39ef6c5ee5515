"""The ULD authors' scoring, ours beside it, and their layout."""

import json
from pathlib import PurePosixPath

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from kd.audit.published.protocol import MalformedError
from kd.audit.published.protocols.uld import PROTOCOL
from kd.audit.published.rouge import rouge
from kd.audit.published.significance import paired_difference
from kd.evaluation.rouge import rouge as by_rouge_score

WORDS = st.lists(st.sampled_from("a the cat Cat sat, on mat. é 12 - \n".split(" ")), max_size=9)
TEXT = WORDS.map(" ".join)


def score(*lines: dict):
    return PROTOCOL.score(PROTOCOL.rows("\n".join(json.dumps(line) for line in lines)))


def line(prediction: str, answers) -> dict:
    return {"answers": answers, "prediction_text": prediction}


@settings(max_examples=60)
@given(prediction=TEXT, references=st.lists(TEXT, min_size=1, max_size=3))
@example(prediction="a b a", references=["b a b"])
@example(prediction="", references=[""])
def test_rouge_is_that_of_rouge_score(prediction, references):
    for kind, value in rouge(prediction, references)._asdict().items():
        assert value == pytest.approx(by_rouge_score(kind, prediction, references), abs=1e-12)


def test_three_maxima_come_from_different_references():
    scored = score(line("red fox runs", ["red", "red fox runs very fast today"]))
    # Against "red": precision 1/3, recall 1, F1 1/2. Against the other: 1, 1/2, 2/3.
    assert scored.authors["precision"] == pytest.approx(100)
    assert scored.authors["recall"] == pytest.approx(100)
    assert scored.authors["f1"] == scored.correct["f1"] == pytest.approx(200 / 3)
    assert scored.correct["precision"] == pytest.approx(100)
    assert scored.correct["recall"] == pytest.approx(50)
    assert list(scored.quirks.values()) == [1]


def test_an_empty_prediction_of_an_empty_reference_scores_0_and_should_score_100():
    scored = score(line("the", "a."))
    assert (scored.authors["f1"], scored.authors["em"]) == (0, 100)
    assert (scored.correct["f1"], scored.correct["em"]) == (100, 100)


def test_no_response_counts_twice_once_as_right():
    scored = score(line("No response!", "fox"), line("fox", "fox"), line("hen", "fox"))
    assert scored.authors["em"] == pytest.approx(100 * (1 + 0 + 1 + 0) / 4)
    assert scored.correct["em"] == pytest.approx(100 / 3)
    assert scored.authors["squad"] == pytest.approx((scored.authors["f1"] + 50) / 2)


def test_without_a_reference_an_empty_prediction_is_right():
    assert score(line("", []), line("fox", [])).authors["f1"] == 50


def test_of_several_spans_the_authors_keep_the_first():
    spans = [{"start": 0, "end": 3, "string": text} for text in ("fox", "owl")]
    scored = score(line("fox owl", spans))
    assert scored.authors["f1"] == pytest.approx(200 / 3)
    assert scored.correct["f1"] == pytest.approx(100)


@pytest.mark.parametrize(
    ("answers", "references"),
    [
        ("fox", ("fox",)),
        (["fox", "owl"], ("fox", "owl")),
        ({"text": ["fox"], "answer_start": [3]}, ("fox",)),
        ([{"string": "fox"}, {"string": "owl"}], ("fox",)),
    ],
)
def test_answers_have_four_shapes(answers, references):
    (row,) = PROTOCOL.rows(json.dumps(line("hen", answers)))
    assert row.references == references


@pytest.mark.parametrize(
    ("path", "method", "teacher", "variant", "settings_"),
    [
        ("r/opt/qed/T/d0/19/0shots.json", "teacher text", "T", "", "0 19"),
        ("opt/qed/T/d1.5/19/0shots.json", "ULD", "T", "", "0 19"),
        ("opt/qed/T/d0.5/19/0shots.json", "ULD 0.5", "T", "", "0 19"),
        ("opt/qed/T/d1.5_0.25/19/0shots.json", "ULD", "T", "0.25", "0 19"),
        ("r/original/opt/qed/titled/5shots.json", "few-shot", "", "", "5 True"),
    ],
)
def test_a_path_says_what_a_file_is(path, method, teacher, variant, settings_):
    run = PROTOCOL.run(PurePosixPath(path))
    assert (run.dataset, run.model, run.method) == ("qed", "opt", method)
    assert (run.teacher, run.variant) == (teacher, variant)
    assert " ".join(run.settings.values()) == settings_
    assert run.predictions.name == f"predictions_{run.path.name}"


def test_other_files_are_none_of_it_and_misplaced_ones_are_refused():
    assert PROTOCOL.run(PurePosixPath("opt/qed/notes.json")) is None
    assert PROTOCOL.is_predictions(PurePosixPath("opt/predictions_0shots.json"))
    for path in ("0shots.json", "d0/19/0shots.json", "opt/qed/T/d0/last/0shots.json"):
        with pytest.raises(MalformedError, match="lies neither"):
            PROTOCOL.run(PurePosixPath(path))


def test_a_paired_difference_is_the_mean_with_its_standard_error():
    first, second = [float(i % 7) for i in range(400)], [float(i % 7 + i % 3) for i in range(400)]
    result = paired_difference(first, second)
    assert result.mean == pytest.approx(0.9975)
    # The standard deviation of 0, 1, 2, 0, … over the root of 400.
    assert result.standard_error == pytest.approx(0.8175 / 20, abs=1e-4)
    assert result.low == pytest.approx(0.9975 - 1.96 * 0.0408, abs=0.01)
    assert result.high == pytest.approx(0.9975 + 1.96 * 0.0408, abs=0.01)
    assert result.p == pytest.approx(1 / 2000)
    assert result == paired_difference(first, second)


def test_no_difference_is_no_significance():
    assert paired_difference([1.0, 2.0] * 6, [1.0, 2.0] * 6).p == 1
    assert paired_difference([1.0] * 50, [0.0, 2.0] * 25).p > 0.5
    with pytest.raises(ValueError, match="at least 12 rows"):
        paired_difference([1.0] * 5, [2.0, 3.0, 4.0, 5.0, 6.0])
