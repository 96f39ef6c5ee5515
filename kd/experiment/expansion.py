"""A table is a grid: here it becomes rows, and rows become the runs that they need."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

from kd.errors import ExperimentError, nearest
from kd.experiment.layout import Run, native_path, teacher_path, value_path
from kd.experiment.requirements import inapplicable
from kd.experiment.schema import Experiment, Table


@dataclass(frozen=True)
class TableRow:
    """One line of a table: a student distilled from a teacher on (a part of) a dataset."""

    dataset: str
    teacher: str
    student: str
    fraction: int
    test: str | None = None  # where a table says on which datasets students are tested
    metric: str | None = None  # where a table names its metrics
    method: str | None = None  # where a table has one line a method

    @property
    def tested(self) -> str:
        """The dataset whose test rows are answered."""
        return self.test or self.dataset

    def run(self, method: str, seed: int) -> Run:
        """The run behind this line's cell for `method` and `seed`."""
        return Run(self.dataset, self.teacher, self.student, method, self.fraction, seed)


def table_of(experiment: Experiment, name: str) -> Table:
    """Look up a table.

    Raises:
        ExperimentError: the experiment declares no such table.
    """
    if name not in experiment.tables:
        raise ExperimentError(
            f"experiment '{experiment.name}' has no table '{name}'. "
            f"{nearest(name, experiment.tables)}"
        )
    return experiment.tables[name]


def table_methods(experiment: Experiment, table: Table) -> list[str]:
    """A table's methods, in the experiment's order."""
    return [name for name in experiment.methods if not table.methods or name in table.methods]


def _chosen(declared: dict[str, object], wanted: list[str]) -> list[str]:
    return [name for name in declared if not wanted or name in wanted]


def table_rows(experiment: Experiment, name: str) -> list[TableRow]:
    """The lines of a table, in the experiment's order."""
    table = table_of(experiment, name)
    own: list[str | None] = [None]
    tests = [*_chosen(dict(experiment.datasets), table.tests)] if table.tests else own
    metrics = [*table.metrics] or own
    rows = [
        TableRow(*axes)
        for axes in product(
            _chosen(dict(experiment.datasets), table.datasets),
            _chosen(dict(experiment.teachers), table.teachers),
            _chosen(dict(experiment.students), table.students),
            table.fractions,
            tests,
            metrics,
        )
    ]
    if "method" not in table.rows:
        return rows
    compared = [name for name in table_methods(experiment, table) if name != table.baseline]
    return [
        replace(row, method=method)
        for row in rows
        for method in compared
        if not (table.skip_inapplicable and _inapplicable(experiment, row, method))
    ]


def _inapplicable(experiment: Experiment, row: TableRow, method: str) -> str | None:
    teacher, student = experiment.teachers[row.teacher], experiment.students[row.student]
    return inapplicable(experiment.methods[method], teacher, student)


def used_datasets(experiment: Experiment) -> list[str]:
    """Datasets on which students are trained; micro models learn from their rows."""
    rows = (row for name in experiment.tables for row in table_rows(experiment, name))
    used = {row.dataset for row in rows}
    return [name for name in experiment.datasets if name in used]


def table_runs(experiment: Experiment, name: str) -> list[Run]:
    """All distillations that a table needs, each once."""
    return list(dict.fromkeys(run for _, run in _row_runs(experiment, name)))


def _row_runs(experiment: Experiment, name: str) -> Iterator[tuple[TableRow, Run]]:
    table = table_of(experiment, name)
    everywhere = table_methods(experiment, table)
    for row in table_rows(experiment, name):
        for method in [table.baseline, row.method] if row.method else everywhere:
            for seed in experiment.seeds:
                yield row, row.run(method, seed)


def table_scores(experiment: Experiment, name: str) -> list[str]:
    """Files of scores (or training curves) that a table reads, below `results/<experiment>/`."""
    return [path for path in dict.fromkeys(_scores(experiment, name)) if path]


def _scores(experiment: Experiment, name: str) -> Iterator[str | None]:
    for row in table_rows(experiment, name):
        yield value_path(teacher_path(row.teacher, row.tested), row.tested, row.metric)
        yield value_path(native_path(row.tested, row.student), row.tested, row.metric)
    for row, run in _row_runs(experiment, name):
        yield value_path(run.path, row.tested, row.metric)


def all_runs(experiment: Experiment) -> list[Run]:
    """All distillations of all tables, each once."""
    runs = (run for name in experiment.tables for run in table_runs(experiment, name))
    return list(dict.fromkeys(runs))


def row_axes(row: TableRow) -> dict[str, Any]:
    """The axes of a table's line, by name, as its specification has them."""
    axes = {
        "dataset": row.dataset,
        "teacher": row.teacher,
        "student": row.student,
        "fraction": row.fraction,
    }
    further = {"test": row.test, "metric": row.metric, "method": row.method}
    return axes | {axis: value for axis, value in further.items() if value}


def axis_columns(table: Table) -> list[str]:
    """The axes that a table shows: several fractions are always told apart, and test datasets."""
    told_apart = {"test": bool(table.tests), "fraction": len(table.fractions) > 1}
    further = [axis for axis, needed in told_apart.items() if needed and axis not in table.rows]
    return [*table.rows, *further]
