"""Scores of one predictions file: per example and in the mean, all in percent.

The result names no time and no path, and the same predictions give the same bytes. Modules
that are slow to import are loaded only for the metrics that need them.
"""

import json
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from statistics import fmean, stdev
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from kd.errors import ArtifactError, DataError
from kd.evaluation.bertscore import Encoder, Unavailable, bert_f1
from kd.evaluation.calibration import brier_score, expected_calibration_error
from kd.evaluation.overlap import best_overlap, exact_match
from kd.evaluation.predictions import Prediction
from kd.experiment.schema import BertScore, Evaluation
from kd.provenance.canonical import canonical_json
from kd.provenance.files import write_text

PerExample = Callable[[str, Sequence[str]], float]


CALIBRATION = ("confidence", "brier", "ece")


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Aggregate(_Strict):
    """Mean and sample standard deviation over the examples, in percent."""

    mean: float
    sd: Annotated[float, Field(ge=0)]


class Whole(_Strict):
    """A score of all examples together, in percent: no example has one of its own."""

    mean: float


class Missing(_Strict):
    """A metric that could not be computed, and why."""

    unavailable: str


class Scores(_Strict):
    """The contents of `scores.json`. `per_example` is in the order of `ids`."""

    n: int
    empty: int = Field(description="blank predictions")
    truncated: int = Field(description="predictions that ended at max_new_tokens")
    metrics: dict[str, Aggregate | Whole | Missing]
    encoder: Encoder | None = Field(default=None, description="what computed BERTScore")
    ids: list[str]
    per_example: dict[str, list[float]]

    def mean(self, metric: str) -> float | None:
        """The mean of `metric`, in percent; None where it was unavailable or not computed."""
        found = self.metrics.get(metric)
        return None if found is None or isinstance(found, Missing) else found.mean


def score_rows(predictions: Sequence[Prediction], evaluation: Evaluation) -> Scores:
    """Score `predictions` by every metric of `evaluation`.

    Raises:
        DataError: there are no predictions.
        ModelError: BERTScore's encoder has fewer layers than asked for.
    """
    if not predictions:
        raise DataError("There are no predictions to score. Give the test split some rows.")
    per_example: dict[str, list[float]] = {}
    metrics: dict[str, Aggregate | Whole | Missing] = {}
    encoder = None
    for metric in evaluation.metrics:
        if metric in CALIBRATION:
            found = _calibration(metric, predictions)
            if isinstance(found, list):
                per_example[metric] = found
            else:
                metrics[metric] = found
            continue
        if metric != "bertscore":
            per_example[metric] = _percent(_definition(metric), predictions)
            continue
        bert = _bertscore(predictions, evaluation.bertscore)
        if isinstance(bert, Unavailable):
            metrics[metric] = Missing(unavailable=bert.reason)
        else:
            per_example[metric], encoder = bert
    metrics |= {metric: _aggregate(values) for metric, values in per_example.items()}
    endings = Counter(prediction.finish_reason for prediction in predictions)
    return Scores(
        n=len(predictions),
        empty=sum(not prediction.prediction.strip() for prediction in predictions),
        truncated=endings["length"],
        metrics=metrics,
        encoder=encoder,
        ids=[prediction.id for prediction in predictions],
        per_example=per_example,
    )


def write_scores(scores: Scores, path: Path) -> None:
    """Write `scores` as canonical JSON, atomically."""
    write_text(path, canonical_json(scores.model_dump(mode="json")) + "\n")


def read_scores(path: Path) -> Scores:
    """Read scores that `write_scores` wrote.

    Raises:
        ArtifactError: the file is missing or malformed.
    """
    try:
        return Scores.model_validate(json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        raise ArtifactError(f"{path}: no such file. Run `kd score` first.") from None
    except (ValueError, ValidationError):
        raise ArtifactError(f"{path}: not a scores file. Remove it and score again.") from None


def _definition(metric: str) -> PerExample:
    """The function behind a metric's name; values are between 0 and 1."""
    if metric == "exact_match":
        return exact_match
    if metric.startswith("rouge"):
        from kd.evaluation.rouge import rouge  # two seconds

        return partial(rouge, metric)
    return lambda prediction, references: float(
        getattr(best_overlap(prediction, references), metric)
    )


def _percent(score: PerExample, predictions: Sequence[Prediction]) -> list[float]:
    return [100 * score(row.prediction, row.references) for row in predictions]


def _calibration(metric: str, predictions: Sequence[Prediction]) -> list[float] | Whole | Missing:
    """Confidence, or a score of it against exact match: an answer's own, or all answers'."""
    known = [row.confidence for row in predictions if row.confidence is not None]
    if len(known) < len(predictions):
        return Missing(unavailable="the predictions hold no confidence: predict again")
    if metric == "confidence":
        return [100 * confidence for confidence in known]
    correct = [exact_match(row.prediction, row.references) for row in predictions]
    if metric == "ece":
        return Whole(mean=100 * expected_calibration_error(known, correct))
    return [100 * brier_score(*pair) for pair in zip(known, correct, strict=True)]


def _bertscore(
    predictions: Sequence[Prediction], settings: BertScore | None
) -> tuple[list[float], Encoder] | Unavailable:
    if settings is None:
        return Unavailable("the experiment's evaluation.bertscore names no model")
    texts = [row.prediction for row in predictions]
    scores = bert_f1(texts, [row.references for row in predictions], settings)
    if isinstance(scores, Unavailable):
        return scores
    return [round(100 * f1, 3) for f1 in scores.f1], scores.encoder


def _aggregate(values: Sequence[float]) -> Aggregate:
    return Aggregate(mean=fmean(values), sd=stdev(values) if len(values) > 1 else 0.0)
