"""Scores are per example, in percent, the same bytes each time, and cheap to import."""

import json
import subprocess
import sys

import pytest

from kd.errors import ArtifactError, DataError
from kd.evaluation.predictions import Prediction
from kd.evaluation.scoring import read_scores, score_rows, write_scores
from kd.experiment.schema import Evaluation


def prediction(name, text, references, reason="eos", confidence=None):
    return Prediction(
        id=name,
        prompt_sha256="0" * 64,
        prediction=text,
        references=references,
        finish_reason=reason,
        tokens=3,
        confidence=confidence,
    )


PREDICTIONS = [
    prediction("b", "the red fox", ["red fox"]),
    prediction("a", "fox", ["red fox", "bear"], "length"),
    prediction("c", " ", ["blue"]),
]


def test_means_deviations_and_counts_by_hand():
    """F1 is 100, 66.7 and 0; one answer is blank, one cut off; the order is kept."""
    scores = score_rows(PREDICTIONS, Evaluation(metrics=["f1", "exact_match", "recall"]))
    assert scores.per_example["f1"] == pytest.approx([100, 200 / 3, 0])
    assert scores.mean("f1") == pytest.approx(500 / 9)
    assert scores.metrics["f1"].sd == pytest.approx(50.9175077)
    assert scores.mean("exact_match") == pytest.approx(100 / 3)
    assert scores.mean("recall") == pytest.approx(50)
    assert (scores.n, scores.empty, scores.truncated) == (3, 1, 1)
    assert scores.ids == ["b", "a", "c"]


def test_the_order_of_rows_changes_no_mean():
    """Sums are exact, so that not even the last bit moves."""
    metrics = Evaluation(metrics=["f1", "precision", "rougeL"])
    many = [
        prediction(str(n), "fox " * (n % 5) + "red " * (n % 3), ["red fox fox"]) for n in range(40)
    ]
    assert score_rows(many, metrics).metrics == score_rows(many[::-1], metrics).metrics


def test_every_metric_of_the_schema_has_a_definition():
    """BERTScore without a model is reported, not refused."""
    names = ["f1", "exact_match", "precision", "recall", "rouge1", "rouge2", "rougeL", "rougeLsum"]
    scores = score_rows(PREDICTIONS[:1], Evaluation(metrics=[*names, "bertscore"]))
    assert {name: scores.mean(name) for name in names[:4]} == dict.fromkeys(names[:4], 100)
    assert scores.mean("rouge1") == pytest.approx(80)
    assert "names no model" in scores.metrics["bertscore"].unavailable
    assert scores.mean("bertscore") is None
    assert scores.metrics["f1"].sd == 0


def test_confidence_is_scored_against_exact_match(tmp_path):
    """One right answer and one wrong one, both in the last bin; its mean has no examples."""
    rows = [
        prediction("a", "red fox", ["red fox"], confidence=1.0),
        prediction("b", "bear", ["red fox"], confidence=0.92),
    ]
    scores = score_rows(rows, Evaluation(metrics=["confidence", "brier", "ece"]))
    assert scores.per_example["confidence"] == pytest.approx([100, 92])
    assert scores.per_example["brier"] == pytest.approx([0, 84.64])
    assert scores.mean("ece") == pytest.approx(96 - 50) and "ece" not in scores.per_example
    write_scores(scores, tmp_path / "scores.json")
    assert read_scores(tmp_path / "scores.json") == scores
    unknown = score_rows(PREDICTIONS, Evaluation(metrics=["f1", "ece"]))
    assert unknown.mean("ece") is None and unknown.mean("f1") is not None


def test_scores_survive_their_file(tmp_path):
    """Canonical JSON with the documented keys; a broken or missing file is refused."""
    path = tmp_path / "scores.json"
    scores = score_rows(PREDICTIONS, Evaluation(metrics=["f1", "bertscore"]))
    write_scores(scores, path)
    assert read_scores(path) == scores
    content = json.loads(path.read_text())
    assert content["metrics"]["f1"].keys() == {"mean", "sd"}
    assert content["metrics"]["bertscore"].keys() == {"unavailable"}
    path.write_text('{"n": 1}')
    with pytest.raises(ArtifactError, match="not a scores file"):
        read_scores(path)
    with pytest.raises(ArtifactError, match="kd score"):
        read_scores(tmp_path / "none.json")


def test_no_predictions_are_no_score():
    """A mean over nothing is refused."""
    with pytest.raises(DataError, match="no predictions"):
        score_rows([], Evaluation())


def test_scoring_overlap_imports_nothing_heavy():
    """Every cell of every table is scored in a process of its own."""
    code = (
        "import sys, kd.evaluation.scoring;"
        "print({'torch', 'transformers', 'evaluate', 'nltk', 'datasets'} & set(sys.modules))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "set()"
