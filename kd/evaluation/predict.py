"""Stage `predict`: a model's greedy answers to the test rows of a dataset.

The same stage serves distilled students (no shots), native students and teachers (few-shot).
A test row that does not fit the model's context is refused, never dropped: a score over fewer
rows would be another score.
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path

from kd.data.prompts import choose_shots, prompt_writer
from kd.data.rows import Row, read_rows
from kd.evaluation.backends import open_backend
from kd.evaluation.generation import Generated, generate
from kd.evaluation.predictions import Prediction, write_predictions
from kd.experiment.stages import PredictSpec
from kd.models.loading import load_model
from kd.models.placement import placement_notes
from kd.progress import progress
from kd.provenance.manifest import StageRecord
from kd.resume.finished import is_done, settle
from kd.resume.journal import Journal


def predict(
    spec: PredictSpec,
    model_path: Path,
    data: Path,
    out: Path,
    checkpoints: Path | None = None,
    *,
    base: Path | None = None,
) -> None:
    """Answer the test rows of the folder `data` into the parquet file `out`.

    Finished batches are kept in the folder `checkpoints` until all are. `base` is the model that
    adapters in `model_path` belong to.

    Raises:
        DataError: a prompt is longer than the model's context allows.
    """
    inputs = {"model": model_path, "test": data / "test.parquet"}
    if spec.shots:
        inputs["train"] = data / "train.parquet"
    if base is not None:
        inputs["base"] = base
    code, external = ("kd.evaluation.predict",), ("model", "base")
    record = StageRecord("predict", spec, inputs, code, external=external)
    model, tokenizer = load_model(model_path, base, spec.load)
    journal = None if checkpoints is None else Journal(checkpoints, record.fingerprint)
    if is_done(record, journal.folder if journal else None, out):
        return
    rows = read_rows(inputs["test"])
    shots = choose_shots(read_rows(inputs["train"]), spec.shots, spec.seed) if spec.shots else []
    write = prompt_writer(spec.prompt, model_path)
    prompts = [write(row, shots) for row in rows]
    noted = placement_notes(spec.load, model)
    backend, checked = open_backend(
        model, tokenizer, model_path, spec.generation, placement=spec.load, prompts=prompts
    )
    with progress(f"predictions on {spec.dataset}", len(rows)) as advance:
        answers = generate(
            model,
            tokenizer,
            prompts,
            spec.generation,
            advance,
            ids=[row.id for row in rows],
            journal=journal,
            backend=backend,
        )
    write_predictions(predictions_of(rows, prompts, answers), out)
    counts = {"rows": len(rows), "shots": [row.id for row in shots]}
    record.write(out, notes=counts | noted | checked)
    if journal is not None:
        settle(record, journal.folder, out)


def predictions_of(
    rows: Sequence[Row], prompts: Sequence[str], generated: Sequence[Generated]
) -> list[Prediction]:
    """Join each row with its prompt and the answer generated for it (all in the same order)."""
    return [
        Prediction(
            id=row.id,
            prompt_sha256=hashlib.sha256(prompt.encode()).hexdigest(),
            prediction=answer.text,
            references=row.answers,
            finish_reason=answer.finish_reason,
            tokens=len(answer.token_ids),
            confidence=answer.confidence,
        )
        for row, prompt, answer in zip(rows, prompts, generated, strict=True)
    ]
