"""The teacher's synthetic text: its few-shot answer to every training and validation prompt.

Every method trains on these answers (sequence-level distillation, Kim and Rush 2016). A prompt that
is too long for the teacher loses examples; rows whose question alone is too long are dropped, and
so are those that do not fit together with their answer. All is recorded.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from kd.data.fitting import shortening_note, with_fewer_shots
from kd.data.prompts import choose_shots, prompt_writer
from kd.data.rows import Row, read_rows
from kd.errors import ArtifactError, DataError
from kd.evaluation.backends import open_backend
from kd.evaluation.generation import generate, prompt_fits, prompt_limit
from kd.experiment.stages import AnswerSpec
from kd.models.encoding import context_length, encode_answer, encode_prompt
from kd.models.loading import load_model, pick_device
from kd.models.placement import placement_notes
from kd.progress import progress
from kd.provenance.files import atomic_file
from kd.provenance.manifest import StageRecord
from kd.resume.finished import is_done, settle
from kd.resume.journal import Journal

SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("split", pa.string()),
        ("prompt", pa.string()),
        ("answer", pa.string()),
        ("finish_reason", pa.string()),
    ]
)


@dataclass(frozen=True)
class Answer:
    """A teacher's answer to one row, with the very prompt it was given."""

    id: str
    split: str
    prompt: str
    answer: str
    finish_reason: str


def read_answers(path: Path) -> list[Answer]:
    """Read what `write_answers` wrote.

    Raises:
        ArtifactError: no such file.
    """
    if not path.is_file():
        raise ArtifactError(f"{path}: no teacher answers. Run `kd answer` first.")
    try:
        return [Answer(**record) for record in pq.read_table(path).to_pylist()]
    except (pa.ArrowInvalid, TypeError):
        raise ArtifactError(
            f"{path}: not a file of teacher answers. Delete it and run `kd answer` again."
        ) from None


def write_answers(
    spec: AnswerSpec, model_path: Path, data: Path, out: Path, checkpoints: Path | None = None
) -> None:
    """Stage `answer`: answer the train and validation rows of `data` into the file `out`.

    Finished batches are kept in the folder `checkpoints` until all are.
    """
    inputs = {"model": model_path} | {
        split: data / f"{split}.parquet" for split in ("train", "validation")
    }
    pick_device()
    record = StageRecord("answer", spec, inputs, ("kd.teacher.answers",), external=("model",))
    journal = None if checkpoints is None else Journal(checkpoints, record.fingerprint)
    if is_done(record, journal.folder if journal else None, out):
        return
    model, tokenizer = load_model(model_path, placement=spec.load)
    train = read_rows(inputs["train"])
    shots = choose_shots(train, spec.shots, spec.seed)
    shown = {row.id for row in shots}
    rows = [("train", row) for row in train if row.id not in shown]
    rows += [("validation", row) for row in read_rows(inputs["validation"])]
    write = prompt_writer(spec.prompt, model_path)
    fits = prompt_fits(model, tokenizer, spec.generation)
    fitting = [(split, row, with_fewer_shots(row, shots, write, fits)) for split, row in rows]
    kept = [(split, row, fit) for split, row, fit in fitting if fit is not None]
    _require_some(kept, spec, prompt_limit(model, tokenizer, spec.generation))
    prompts = [fit.write(row, shots, write) for _, row, fit in kept]
    placed = placement_notes(spec.load, model)
    backend, noted = open_backend(
        model, tokenizer, model_path, spec.generation, placement=spec.load, prompts=prompts
    )
    with progress(f"answers on {spec.dataset}", len(kept)) as advance:
        generated = generate(
            model, tokenizer, prompts, spec.generation, advance, journal=journal, backend=backend
        )
    answers = [
        Answer(row.id, split, prompt, got.text, got.finish_reason)
        for (split, row, _), prompt, got in zip(kept, prompts, generated, strict=True)
        if _readable(model, tokenizer, prompt, got.text)
    ]
    _write(answers, out)
    left = {answer.id for answer in answers}
    fewer = {row.id: fit for _, row, fit in kept if fit.shots < len(shots) and row.id in left}
    too_long = len(rows) - len(answers)
    _say_too_long(spec.dataset, len(rows), too_long, len(fewer))
    counts = _notes(answers, too_long, shots) | shortening_note(fewer)
    record.write(out, notes=counts | placed | noted)
    if journal is not None:
        settle(record, journal.folder, out)


def _require_some(kept: Sequence[object], spec: AnswerSpec, limit: int) -> None:
    if not kept:
        raise DataError(
            f"dataset '{spec.dataset}': every prompt is too long for the teacher, even without "
            f"examples (room for {limit} tokens). Use a model with a longer context, or a smaller "
            "generation.max_new_tokens."
        )


def _readable(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, prompt: str, answer: str
) -> bool:
    """Whether the teacher can read its answer, with EOS, after the prompt.

    There was room for the tokens that it generated. Their text may be cut into more.
    """
    encoder_decoder = bool(model.config.is_encoder_decoder)
    target = len(encode_answer(tokenizer, answer)) + 1
    before = 0 if encoder_decoder else len(encode_prompt(tokenizer, prompt, encoder_decoder))
    return before + target <= context_length(model, tokenizer)


def _say_too_long(dataset: str, rows: int, dropped: int, fewer: int) -> None:
    if dropped or fewer:
        print(
            f"warning: of {rows} prompts on {dataset}, {fewer} lost examples and {dropped} were "
            "dropped, as the teacher's context does not hold them; the manifest counts them",
            file=sys.stderr,
        )


def _write(answers: Sequence[Answer], out: Path) -> None:
    table = pa.Table.from_pylist([vars(answer) for answer in answers], schema=SCHEMA)
    with atomic_file(out) as staging:
        pq.write_table(table, staging)


def _notes(answers: Sequence[Answer], too_long: int, shots: Sequence[Row]) -> dict[str, object]:
    return {
        "answers": len(answers),
        "dropped_too_long": too_long,
        "empty": sum(not answer.answer for answer in answers),
        "cut_at_max_new_tokens": sum(answer.finish_reason == "length" for answer in answers),
        "shots": [row.id for row in shots],
    }
