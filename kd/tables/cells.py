"""The numbers of a table: scores read from disk, one line per student, one value per column."""

from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from kd.experiment.claims import Place, place_of
from kd.experiment.metrics import metric_named
from kd.experiment.stages import TableSpec
from kd.tables.scores import ScoreReader
from kd.tables.statistics import DECIMALS, spread

TEACHER = "teacher_score"
NATIVE = "native"
SCORE = "score"  # of a line's own method, where a table has one line a method
GAIN = "gain"


@dataclass(frozen=True)
class Cell:
    """One value, in percent or nats, with the score files it rests on; None where there is none.

    Attributes:
        value: the score, its mean over seeds, or a gain (positive is better).
        scores: paths of the score files, below the experiment's results.
        per_seed: the values behind a mean by seed; None for a model that no seed trained.
        unavailable: why there is no value.
    """

    value: float | None
    scores: list[str]
    per_seed: dict[str, float] | None = None
    unavailable: str | None = None

    @property
    def n(self) -> int | None:
        """Number of seeds; None for a model that no seed trained."""
        return None if self.per_seed is None else len(self.per_seed)

    @property
    def sd(self) -> float | None:
        """Standard deviation over seeds; None for fewer than two."""
        if not self.per_seed:
            return None
        found = spread(list(self.per_seed.values())).sd
        return None if found is None else round(found, DECIMALS)


@dataclass(frozen=True)
class Line:
    """One line of a table: its axes, the metric, and cells by column."""

    axes: dict[str, Any]
    metric: str
    cells: dict[str, Cell]

    @property
    def place(self) -> Place:
        """Where the line's cells lie, its method aside."""
        return place_of(self.axes)

    def method(self, column: str) -> str:
        """What a column of scores is called in runs: the line's method for `score`."""
        return str(self.axes["method"]) if column == SCORE and "method" in self.axes else column


def shown_axes(spec: TableSpec) -> list[str]:
    """Axes that a table shows, in order."""
    always = ["dataset", "teacher", "student"]
    return [*always, *(axis for axis in spec.columns if axis not in always)]


def score_columns(spec: TableSpec) -> list[str]:
    """Columns that hold scores, in order."""
    methods = [spec.baseline, SCORE] if spec.one_method_a_line else spec.methods
    return [TEACHER, NATIVE, *methods]


def gain_columns(spec: TableSpec) -> dict[str, str]:
    """Columns that hold gains over the table's baseline: column to column of scores."""
    if spec.one_method_a_line:
        return {GAIN: SCORE}
    return {f"gain_{method}": method for method in spec.methods if method != spec.baseline}


def build_lines(spec: TableSpec, results: Path, reader: ScoreReader | None = None) -> list[Line]:
    """Read all scores below `results` (the experiment's folder) and lay them out.

    Raises:
        ArtifactError: a score file is missing or lacks the metric.
    """
    reader = reader or ScoreReader(spec, results)
    return [_line(spec, axes, reader) for axes in spec.rows]


def _line(spec: TableSpec, axes: dict[str, Any], reader: ScoreReader) -> Line:
    place = place_of(axes)
    metric = place.metric or spec.metrics[place.tested]
    cells: dict[str, Cell] = {}
    line = Line(axes, metric, cells)
    for column in score_columns(spec):
        paths = reader.paths(place, line.method(column))
        cells[column] = _cell(paths, metric, reader)
    for column, scores in gain_columns(spec).items():
        sign = metric_named(metric).sign
        cells[column] = _gain(cells[scores], cells[spec.baseline], sign)
    return line


def _cell(paths: dict[int | None, str], metric: str, reader: ScoreReader) -> Cell:
    if not paths:
        return Cell(None, [], unavailable="only a distilled student has a training curve")
    found = {seed: reader.read(path, metric) for seed, path in paths.items()}
    values = {seed: read.mean for seed, read in found.items() if read.mean is not None}
    scores = list(paths.values())
    if len(values) < len(found):
        reasons = (read.unavailable for read in found.values() if read.unavailable)
        return Cell(None, scores, unavailable=next(reasons, None))
    seeds = {str(seed): value for seed, value in values.items() if seed is not None}
    return Cell(fmean(values.values()), scores, seeds or None)


def _gain(cell: Cell, baseline: Cell, sign: int) -> Cell:
    """The cell minus the baseline, or the reverse where less is better (`sign` -1)."""
    scores = [*cell.scores, *baseline.scores]
    if cell.value is None or baseline.value is None:
        return Cell(None, scores, unavailable=cell.unavailable or baseline.unavailable)
    own, theirs = cell.per_seed or {}, baseline.per_seed or {}
    seeds = {seed: sign * (value - theirs[seed]) for seed, value in own.items() if seed in theirs}
    # No -0.0, which would be written as a loss.
    return Cell(sign * (cell.value - baseline.value) + 0.0, scores, seeds or None)
