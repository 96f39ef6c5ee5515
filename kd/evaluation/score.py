"""Stage `score`: predictions become scores, per example and on average."""

from pathlib import Path

from kd.evaluation.predictions import read_predictions
from kd.evaluation.scoring import score_rows, write_scores
from kd.experiment.stages import ScoreSpec
from kd.provenance.manifest import StageRecord


def score(spec: ScoreSpec, predictions: Path, out: Path) -> None:
    """Score the file `predictions` into the JSON file `out`."""
    record = StageRecord("score", spec, {"predictions": predictions}, ("kd.evaluation.score",))
    write_scores(score_rows(read_predictions(predictions), spec.evaluation), out)
    record.write(out)
