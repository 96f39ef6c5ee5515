"""Stage `pretrain`: a micro model from the rows of all datasets of its experiment."""

from pathlib import Path

from kd.data.rows import Row, read_rows
from kd.experiment.stages import PretrainSpec
from kd.models.pretraining import pretrain
from kd.progress import progress
from kd.provenance.manifest import StageRecord
from kd.resume.checkpoints import CheckpointFolder
from kd.resume.finished import is_done, settle


def pretrain_model(
    spec: PretrainSpec, data: Path, out: Path, checkpoints: Path | None = None
) -> None:
    """Train the model on the datasets below `data` and write the folder `out/model`.

    Its state is kept in the folder `checkpoints` until it is done.
    """
    inputs = {name: corpus_file(data / name) for name in spec.datasets}
    record = StageRecord("pretrain", spec, inputs, ("kd.models.stage",))
    kept = None if checkpoints is None else CheckpointFolder(checkpoints, record.fingerprint)
    if is_done(record, kept.path if kept else None, out / "model"):
        return
    rows: dict[str, list[Row]] = {name: read_rows(path) for name, path in inputs.items()}
    with progress(f"pretraining {spec.name}", spec.model.pretraining.steps) as advance:
        pretrain(
            spec.model,
            spec.name,
            rows,
            out / "model",
            progress=lambda step, loss: advance(step, f"loss {loss:.3f}"),
            checkpoints=kept,
        )
    record.write(out / "model")
    if kept is not None:
        settle(record, kept.path, out / "model")


def corpus_file(dataset: Path) -> Path:
    """What models learn from: the rows set aside for it, or else the training rows."""
    own = dataset / "pretraining.parquet"
    return own if own.is_file() else dataset / "train.parquet"
