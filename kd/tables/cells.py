"""The numbers of a table: scores read from disk, one line per student, one value per column."""

import json
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from kd.errors import ArtifactError
from kd.experiment.layout import Run, native_path, scores_path, teacher_path
from kd.experiment.stages import TableSpec

TEACHER = "teacher_score"
NATIVE = "native"
SCORE = "score"  # of a line's own method, where a table has one line a method
GAIN = "gain"


@dataclass(frozen=True)
class Cell:
    """One value, in percent, with the score files it rests on; None where there is none."""

    value: float | None
    scores: list[str]
    per_seed: dict[str, float] | None = None
    unavailable: str | None = None


@dataclass(frozen=True)
class Line:
    """One line of a table: its axes, the metric, and cells by column."""

    axes: dict[str, Any]
    metric: str
    cells: dict[str, Cell]


def score_columns(spec: TableSpec) -> list[str]:
    """Columns that hold scores, in order."""
    methods = [spec.baseline, SCORE] if spec.one_method_a_line else spec.methods
    return [TEACHER, NATIVE, *methods]


def gain_columns(spec: TableSpec) -> dict[str, str]:
    """Columns that hold gains over the table's baseline: column to column of scores."""
    if spec.one_method_a_line:
        return {GAIN: SCORE}
    return {f"gain_{method}": method for method in spec.methods if method != spec.baseline}


def build_lines(spec: TableSpec, results: Path) -> list[Line]:
    """Read all scores below `results` (the experiment's folder) and lay them out.

    Raises:
        ArtifactError: a score file is missing or lacks the metric.
    """
    return [_line(spec, axes, results) for axes in spec.rows]


def _line(spec: TableSpec, axes: dict[str, Any], results: Path) -> Line:
    dataset, teacher, student = axes["dataset"], axes["teacher"], axes["student"]
    metric = spec.metrics[dataset]

    def single(subject: str) -> Cell:
        path = scores_path(subject, dataset)
        value, reason = _read(results / path, metric)
        return Cell(value, [path], unavailable=reason)

    cells = {
        TEACHER: single(teacher_path(teacher, dataset)),
        NATIVE: single(native_path(dataset, student)),
    }
    for column in score_columns(spec)[2:]:
        method = axes["method"] if column == SCORE and spec.one_method_a_line else column
        runs = {
            seed: Run(dataset, teacher, student, method, axes["fraction"], seed)
            for seed in spec.seeds
        }
        cells[column] = _over_seeds({seed: single(run.path) for seed, run in runs.items()})
    for column, scores in gain_columns(spec).items():
        cells[column] = _difference(cells[scores], cells[spec.baseline])
    return Line(axes, metric, cells)


def _read(path: Path, metric: str) -> tuple[float | None, str | None]:
    """A score in percent, or the reason why there is none."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))["metrics"][metric]
    except (OSError, ValueError, KeyError) as error:
        raise ArtifactError(
            f"{path}: no score '{metric}' to read ({error}). Re-run `kd score`."
        ) from None
    return found.get("mean"), found.get("unavailable")


def _over_seeds(cells: dict[int, Cell]) -> Cell:
    scores = [path for cell in cells.values() for path in cell.scores]
    values = {str(seed): cell.value for seed, cell in cells.items() if cell.value is not None}
    if len(values) < len(cells):
        reasons = (cell.unavailable for cell in cells.values() if cell.unavailable)
        return Cell(None, scores, unavailable=next(reasons, None))
    return Cell(fmean(values.values()), scores, per_seed=values)


def _difference(cell: Cell, baseline: Cell) -> Cell:
    scores = [*cell.scores, *baseline.scores]
    if cell.value is None or baseline.value is None:
        return Cell(None, scores, unavailable=cell.unavailable or baseline.unavailable)
    return Cell(cell.value - baseline.value, scores)
