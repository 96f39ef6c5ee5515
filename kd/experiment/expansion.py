"""A table is a grid: here it becomes rows, and rows become the runs that they need."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import product

from kd.errors import ExperimentError, nearest
from kd.experiment.layout import Run, native_path, scores_path, teacher_path
from kd.experiment.requirements import inapplicable
from kd.experiment.schema import Experiment, Table


@dataclass(frozen=True)
class TableRow:
    """One line of a table: a student distilled from a teacher on (a part of) a dataset."""

    dataset: str
    teacher: str
    student: str
    fraction: int
    method: str | None = None  # where a table has one line a method

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
    rows = [
        TableRow(*axes)
        for axes in product(
            _chosen(dict(experiment.datasets), table.datasets),
            _chosen(dict(experiment.teachers), table.teachers),
            _chosen(dict(experiment.students), table.students),
            table.fractions,
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
    """Datasets that some table shows; micro models learn from their rows."""
    rows = (row for name in experiment.tables for row in table_rows(experiment, name))
    used = {row.dataset for row in rows}
    return [name for name in experiment.datasets if name in used]


def table_runs(experiment: Experiment, name: str) -> list[Run]:
    """All distillations that a table needs, each once."""
    table = table_of(experiment, name)
    everywhere = table_methods(experiment, table)
    runs = (
        row.run(method, seed)
        for row in table_rows(experiment, name)
        for method in ([table.baseline, row.method] if row.method else everywhere)
        for seed in experiment.seeds
    )
    return list(dict.fromkeys(runs))


def table_scores(experiment: Experiment, name: str) -> list[str]:
    """Score files that a table reads, below `results/<experiment>/`, each once."""
    return list(dict.fromkeys(_scores(experiment, name)))


def _scores(experiment: Experiment, name: str) -> Iterator[str]:
    for row in table_rows(experiment, name):
        yield scores_path(teacher_path(row.teacher, row.dataset), row.dataset)
        yield scores_path(native_path(row.dataset, row.student), row.dataset)
    for run in table_runs(experiment, name):
        yield scores_path(run.path, run.dataset)


def all_runs(experiment: Experiment) -> list[Run]:
    """All distillations of all tables, each once."""
    runs = (run for name in experiment.tables for run in table_runs(experiment, name))
    return list(dict.fromkeys(runs))
