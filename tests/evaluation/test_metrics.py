"""The `evaluate.Metric` classes give the very values that the stage `score` writes."""

import evaluate
import pytest

from kd.errors import ModelError
from kd.evaluation.metrics import BertScoreF1, ExactMatch, Rouge, TokenOverlap
from kd.evaluation.predictions import Prediction
from kd.evaluation.scoring import score_rows
from kd.experiment.schema import BertScore, Evaluation

TEXTS = ["the red fox", "fox", ""]
REFERENCES = [["red fox"], ["red fox", "bear"], ["blue"]]


@pytest.mark.parametrize("metric", [TokenOverlap, ExactMatch, Rouge])
def test_metric_classes_agree_with_the_stage(metric):
    """Example by example, up to the factor between share and percent."""
    assert issubclass(metric, evaluate.Metric)
    values = metric().compute(predictions=TEXTS, references=REFERENCES)
    rows = [
        Prediction(
            id=text,
            prompt_sha256="",
            prediction=text,
            references=references,
            finish_reason="eos",
            tokens=1,
        )
        for text, references in zip(TEXTS, REFERENCES, strict=True)
    ]
    stage = score_rows(rows, Evaluation(metrics=list(values))).per_example
    assert {name: [100 * share for share in shares] for name, shares in values.items()} == stage


def test_metrics_combine():
    """`evaluate.combine` takes them like its own."""
    both = evaluate.combine([TokenOverlap(), ExactMatch()])
    values = both.compute(predictions=TEXTS, references=REFERENCES)
    assert values["exact_match"] == [1, 0, 0]
    assert values["f1"] == pytest.approx([1, 2 / 3, 0])


def test_bertscore_without_its_encoder_says_why():
    """A class cannot return a reason in place of scores."""
    metric = BertScoreF1(BertScore(model="/nowhere/encoder", layer=1))
    with pytest.raises(ModelError, match="no local folder 'encoder'"):
        metric.compute(predictions=TEXTS, references=REFERENCES)
