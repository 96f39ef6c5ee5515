"""Our scores of the ULD authors' published predictions are the ones that they published.

Runs where KD_PUBLISHED_DIR names a checkout of github.com/Nicolas-BZRD/llm-distillation (or
its results folder): each `predictions_Nshots.json` has its `Nshots.json` beside it.
"""

import json
import os
from pathlib import Path
from statistics import fmean, stdev

import pytest

from kd.evaluation.overlap import best_overlap, exact_match, token_overlap
from kd.evaluation.rouge import rouge

FOLDER = os.environ.get("KD_PUBLISHED_DIR")
FILES = sorted(Path(FOLDER).rglob("predictions_*shots.json")) if FOLDER else []
pytestmark = pytest.mark.skipif(
    not FILES, reason="KD_PUBLISHED_DIR names no folder with published predictions"
)
# Their ROUGE is the median of 1,000 unseeded bootstrap means, off by up to about 0.13 standard
# errors in 325 published files.
BOOTSTRAP_ERROR = 0.16


def references(answers) -> list[str]:
    """What the authors' script handed to its scorers: of QED's spans only the first."""
    if isinstance(answers, str):
        return [answers]
    if isinstance(answers, dict):
        return answers["text"]
    return [answers[0]["string"]] if isinstance(answers[0], dict) else answers


def load(path: Path) -> tuple[list[tuple[str, list[str]]], dict[str, float]]:
    """Pairs of prediction and references, and the published scores in percent."""
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    pairs = [(line["prediction_text"], references(line["answers"])) for line in lines]
    published = json.loads((path.parent / path.name.removeprefix("predictions_")).read_text())
    scale = 100 if published["f1"] < 1 else 1
    assert published["samples_number"] == len(pairs)
    return pairs, {
        name: scale * value for name, value in published.items() if isinstance(value, float)
    }


@pytest.mark.parametrize("path", FILES, ids=lambda path: "/".join(path.parts[-5:-1]))
def test_f1_precision_recall_and_exact_match_agree_at_two_decimals(path):
    """F1 and exact match as we define them; precision and recall with the maxima apart."""
    pairs, published = load(path)
    each = [[token_overlap(text, answer) for answer in answers] for text, answers in pairs]
    ours = {
        "f1": [best_overlap(*pair).f1 for pair in pairs],
        "precision": [max(overlap.precision for overlap in row) for row in each],
        "recall": [max(overlap.recall for overlap in row) for row in each],
        "em": [exact_match(*pair) for pair in pairs],
    }
    means = {name: 100 * fmean(values) for name, values in ours.items()}
    assert means == pytest.approx({name: published[name] for name in ours}, abs=0.0051)


@pytest.mark.parametrize("path", FILES, ids=lambda path: "/".join(path.parts[-5:-1]))
def test_rouge_agrees_within_the_error_of_their_bootstrap(path):
    """A plain mean lies within the noise of the published median."""
    pairs, published = load(path)
    for kind in ("rouge1", "rouge2", "rougeL", "rougeLsum"):
        values = [100 * rouge(kind, *pair) for pair in pairs]
        error = BOOTSTRAP_ERROR * stdev(values) / len(values) ** 0.5 + 0.0051
        assert fmean(values) == pytest.approx(published[kind], abs=error), kind
