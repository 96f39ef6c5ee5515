"""Stage `predict`: a model's greedy answers to the test rows of a dataset.

The same stage serves distilled students (no shots), native students and teachers (few-shot).
A test row is never dropped: a score over fewer rows would be another score. A prompt that does not
fit the model's context is shortened (`kd.data.fitting`), and the manifest says by how much.
"""

import hashlib
import sys
from collections.abc import Sequence
from pathlib import Path

from kd.data.fitting import fitting_prompts, shortening_note
from kd.data.prompts import choose_shots, prompt_writer
from kd.data.rows import Row, read_rows
from kd.evaluation.backends import open_backend
from kd.evaluation.generation import Generated, generate, prompt_fits
from kd.evaluation.predictions import Prediction, write_predictions
from kd.experiment.stages import PredictSpec
from kd.models.loading import load_model, pick_device
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
        DataError: a question is longer than the model's context allows.
    """
    inputs = {"model": model_path, "test": data / "test.parquet"}
    if spec.shots:
        inputs["train"] = data / "train.parquet"
    if base is not None:
        inputs["base"] = base
    pick_device()
    code, external = ("kd.evaluation.predict",), ("model", "base")
    record = StageRecord("predict", spec, inputs, code, external=external)
    journal = None if checkpoints is None else Journal(checkpoints, record.fingerprint)
    if is_done(record, journal.folder if journal else None, out):
        return
    model, tokenizer = load_model(model_path, base, spec.load)
    rows = read_rows(inputs["test"])
    shots = choose_shots(read_rows(inputs["train"]), spec.shots, spec.seed) if spec.shots else []
    write = prompt_writer(spec.prompt, model_path)
    fits = prompt_fits(model, tokenizer, spec.generation)
    prompts, shortened = fitting_prompts(rows, shots, write, fits)
    if shortened:
        print(
            f"warning: {len(shortened)} of {len(rows)} prompts on {spec.dataset} had to be "
            "shortened to fit the model's context; the manifest says which",
            file=sys.stderr,
        )
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
    record.write(out, notes=counts | shortening_note(shortened) | noted | checked)
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
