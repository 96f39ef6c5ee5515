"""Stage `score`: predictions become scores, per example and on average."""

from pathlib import Path

from kd.evaluation.predictions import read_predictions
from kd.evaluation.scoring import score_rows, write_scores
from kd.experiment.stages import ScoreSpec
from kd.provenance.manifest import StageRecord


def score(spec: ScoreSpec, predictions: Path, out: Path) -> None:
    """Score the file `predictions` into the JSON file `out`."""
    inputs = {"predictions": predictions}
    bertscore = spec.evaluation.bertscore
    if bertscore is not None and Path(bertscore.model).is_dir():
        inputs["encoder"] = Path(bertscore.model)
    record = StageRecord(
        "score",
        spec,
        inputs,
        ("kd.evaluation.score",),
        external=("encoder",),
        tensors=bertscore is not None,
    )
    write_scores(score_rows(read_predictions(predictions), spec.evaluation), out)
    record.write(out)
