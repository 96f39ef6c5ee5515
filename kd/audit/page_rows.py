"""Actual rows in HTML: what stands at the end of a cell's chain."""

import hashlib
from collections.abc import Callable, Sequence
from functools import cache
from html import escape
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from kd.audit.chain import Artifact
from kd.audit.places import model_of, split_evaluation
from kd.data.fitting import Shortened, shortening_noted
from kd.data.prompts import choose_shots, prompt_writer
from kd.data.rows import Row, read_rows
from kd.errors import KdError
from kd.evaluation.predictions import Prediction, read_predictions
from kd.experiment.models import PromptForm

EXAMPLES = 5  # rows that an artifact shows
_LONGEST = 3000  # characters of a text; longer ones lose their middle


def example_rows(results: Path, artifact: Artifact) -> str:
    """The first rows that an artifact holds; nothing where it holds none, or none to read."""
    show = _SHOWN.get(artifact.stage)
    try:
        return show(results, artifact) if show else ""
    except (KdError, LookupError, TypeError, ValueError, OSError, pa.ArrowException):
        return ""  # what is damaged is said elsewhere


def _predictions(results: Path, artifact: Artifact) -> str:
    """Prompt, prediction and references. Prompts are built again: files hold their hashes."""
    found = read_predictions(results / artifact.folder / "predictions.parquet")[:EXAMPLES]
    prompts = _prompts(results, artifact)
    lines = [
        (
            escape(row.id),
            _prompt(prompts.get(row.id), row),
            _text(row.prediction),
            _text(" | ".join(row.references)),
        )
        for row in found
    ]
    return _table(("row", "prompt", "prediction", "references"), lines)


def _prompts(results: Path, artifact: Artifact) -> dict[str, str]:
    subject, dataset = split_evaluation(artifact.folder)
    shots, seed = int(artifact.spec["shots"]), int(artifact.spec["seed"])
    form = PromptForm.model_validate(artifact.spec.get("prompt", {}))
    try:
        write = prompt_writer(form, results / "hub" / str(model_of(subject)) / "model")
        shown = choose_shots(_rows(results, dataset, "train"), shots, seed) if shots else []
        rows = _rows(results, dataset, "test")[:EXAMPLES]
        kept = shortening_noted(artifact.notes)
    except KdError:
        return {}
    whole = Shortened(shots=len(shown))
    return {row.id: kept.get(row.id, whole).write(row, shown, write) for row in rows}


def _prompt(prompt: str | None, row: Prediction) -> str:
    if prompt is None:
        return "<em>the rows are not here</em>"
    same = hashlib.sha256(prompt.encode()).hexdigest() == row.prompt_sha256
    warning = "" if same else "<em class='fail'>not the recorded prompt</em>"
    lines = prompt.strip().splitlines()
    start = escape(lines[-2:][0][:60])
    return f"{warning}<details><summary>{start}…</summary>{_text(prompt)}</details>"


@cache
def _rows(results: Path, dataset: str, split: str) -> list[Row]:
    return read_rows(results / "data" / dataset / f"{split}.parquet")


def _data(results: Path, artifact: Artifact) -> str:
    rows = read_rows(results / artifact.folder / "test.parquet")[:EXAMPLES]
    lines = [
        (escape(row.id), _text(row.context), _text(row.question), _text(" | ".join(row.answers)))
        for row in rows
    ]
    return _table(("test row", "context", "question", "answers"), lines)


def _answers(results: Path, artifact: Artifact) -> str:
    names = ["id", "split", "answer"]
    table = pq.read_table(results / artifact.folder / "answers.parquet", columns=names)
    rows = table.slice(0, EXAMPLES).to_pylist()
    lines = [tuple(_text(str(row[name])) for name in names) for row in rows]
    return _table(("row", "split", "the teacher's answer"), lines)


def _text(text: str) -> str:
    if len(text) > _LONGEST:
        half = _LONGEST // 2
        text = f"{text[:half]} […] {text[-half:]}"
    return f"<span class='text'>{escape(text)}</span>"


def _table(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    names = "".join(f"<th>{escape(name)}</th>" for name in head)
    body = "".join(
        "<tr>" + "".join(f"<td>{cell}</td>" for cell in line) + "</tr>" for line in lines
    )
    return f"<table class='rows'><tr>{names}</tr>{body}</table>"


_SHOWN: dict[str, Callable[[Path, Artifact], str]] = {
    "predict": _predictions,
    "data": _data,
    "answer": _answers,
}
