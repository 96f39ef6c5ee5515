"""Score files made by hand in the layout of a results folder, for the real stage to read."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import fmean

from kd.experiment.base import Strict
from kd.experiment.claims import Place
from kd.experiment.layout import Run, native_path, scores_path, teacher_path
from kd.experiment.stages import NamedClaim, TableSpec
from kd.provenance.manifest import StageRecord
from kd.tables.cells import place_of


class Empty(Strict):
    pass


Scorer = Callable[[Place, str, int | None], Sequence[float] | None]
"""Scores of a place's column at a seed, one an example; None where there is no such score."""


def table_spec(**changed: object) -> TableSpec:
    """A table of two datasets, one teacher and one student."""
    places = [
        {"dataset": d, "teacher": "llama", "student": "opt", "fraction": 100} for d in ("a", "b")
    ]
    content = {
        "experiment": "e",
        "name": "t",
        "title": "Title",
        "columns": ["dataset", "teacher", "student"],
        "rows": places,
        "methods": ["teacher_text", "uld"],
        "baseline": "teacher_text",
        "metrics": {"a": "f1", "b": "f1"},
        "seeds": [0, 1, 2],
        "published": None,
    }
    return TableSpec.model_validate(content | changed)


def named_claim(name: str = "c", **changed: object) -> NamedClaim:
    content = {
        "name": name,
        "text": "ULD beats teacher text.",
        "table": "t",
        "left": {"method": "uld"},
        "right": {"method": "teacher_text"},
    }
    return NamedClaim.model_validate(content | changed)


def write_results(spec: TableSpec, results: Path, scorer: Scorer) -> Path:
    """Every score file and run that a table rests on, each with its manifest."""
    write_scores(spec, results, scorer)
    for file in results.rglob("scores.json"):
        StageRecord("score", Empty(), {}, ("kd.evaluation.score",)).write(file)
    for run in spec.runs():
        _write_run(results, run)
    return results


def write_scores(spec: TableSpec, results: Path, scorer: Scorer) -> Path:
    """The score files alone."""
    for axes in spec.rows:
        place = place_of(axes)
        teacher = teacher_path(place.teacher, place.dataset)
        native = native_path(place.dataset, place.student)
        for column, subject in (("teacher_score", teacher), ("native", native)):
            _write(results, subject, place.dataset, spec, scorer(place, column, None))
    for run in spec.runs():
        place = Place(run.dataset, run.teacher, run.student, run.fraction)
        _write(results, run.path, run.dataset, spec, scorer(place, run.method, run.seed))
    return results


def _write(
    results: Path, subject: str, dataset: str, spec: TableSpec, values: Sequence[float] | None
) -> None:
    path = results / scores_path(subject, dataset)
    path.parent.mkdir(parents=True, exist_ok=True)
    found: Mapping[str, object] = {"unavailable": "no encoder"}
    examples = {}
    if values is not None:
        found, examples = {"mean": fmean(values), "sd": 0.0}, {spec.metrics[dataset]: list(values)}
    ids = [f"{dataset}-{number}" for number in range(len(values or ()))]
    content = {"metrics": {spec.metrics[dataset]: found}, "ids": ids, "per_example": examples}
    path.write_text(json.dumps(content), encoding="utf-8")


def _write_run(results: Path, run: Run) -> None:
    """The manifest of a distillation that took 3 steps of half a second."""
    curve = results / run.path / "train.jsonl"
    curve.write_text("{}", encoding="utf-8")
    record = StageRecord("distill", Empty(), {}, ("kd.training.code",))
    record.write(curve, notes={"steps": 3, "seconds_per_step": 0.5, "cpu_seconds_per_step": 0.25})
