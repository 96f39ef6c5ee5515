"""A table's json, read back: the one source of charts, report and results page."""

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from kd.errors import ArtifactError
from kd.experiment.layout import Run
from kd.tables.finished import read_finished

TEACHER, NATIVE, SCORE = "teacher_score", "native", "score"
SEEDLESS = (TEACHER, NATIVE)  # columns of models that are not distilled


class _Read(BaseModel):
    # Tables may tell more than is shown here.
    model_config = ConfigDict(extra="ignore", frozen=True)


class Cell(_Read):
    """One value of a table: a score in percent or nats, or a gain."""

    value: float | None
    unavailable: str | None = None
    sd: float | None = None
    n: int | None = None
    per_seed: dict[str, float] | None = None
    scores: dict[str, str | None] = {}
    low: float | None = None
    high: float | None = None
    p: float | None = None
    p_holm: float | None = None
    over: str | None = None
    published: float | None = None
    prediction: tuple[float, float] | None = None
    inside: bool | None = None


class Row(_Read):
    """One line of a table."""

    dataset: str
    test: str | None = None  # the dataset that is tested on, where a table names it
    teacher: str
    student: str
    fraction: int
    method: str | None = None
    metric: str
    cells: dict[str, Cell]

    def axis(self, name: str) -> str:
        """The line's value on an axis, as text."""
        return self.tested if name == "test" else str(getattr(self, name))

    @property
    def tested(self) -> str:
        """The dataset whose test rows were answered."""
        return self.test or self.dataset


class Columns(_Read):
    """A table's columns by kind; `gains` maps each to the column whose score gains."""

    axes: list[str]
    scores: list[str]
    gains: dict[str, str]


class Mean(_Read):
    """The mean of one column of gains over all lines, or over those of one method."""

    column: str
    method: str = ""  # where each line has one of its own
    value: float
    better: int
    lines: int
    low: float | None = None
    high: float | None = None
    over: str | None = None


class Verdict(_Read):
    """What a table's scores say of one claim."""

    name: str
    text: str
    source: str = ""
    outcome: Literal["holds", "does not hold", "undecided"]
    value: float | None = None
    low: float | None = None
    high: float | None = None
    sentence: str = ""


class Table(_Read):
    """The contents of `<table>.json`."""

    schema_version: Literal[2]
    experiment: str
    table: str
    title: str = ""
    baseline: str
    seeds: list[int]
    level: float = 0.95
    columns: Columns
    rows: list[Row] = Field(min_length=1)
    means: list[Mean] = []
    claims: list[Verdict] = []

    @property
    def several_fractions(self) -> bool:
        """Whether the lines differ in the share of training rows."""
        return len({row.fraction for row in self.rows}) > 1

    @property
    def several_metrics(self) -> bool:
        """Whether lines differ in nothing but their metric."""
        places = [repr(row.model_copy(update={"cells": {}, "metric": ""})) for row in self.rows]
        return len(set(places)) < len(places)

    @property
    def one_seed(self) -> bool:
        """Whether intervals and verdicts are over test examples alone."""
        return len(self.seeds) == 1

    @property
    def one_method_a_line(self) -> bool:
        """Whether the table has one line a method, instead of one column."""
        return "method" in self.columns.axes

    def name_of(self, row: Row, column: str) -> str:
        """The method that a column of scores holds in a line."""
        return row.method if column == SCORE and row.method else column

    def methods(self) -> list[str]:
        """The methods that are compared, the baseline first."""
        columns = [column for column in self.columns.scores if column not in SEEDLESS]
        named = (self.name_of(row, column) for row in self.rows for column in columns)
        return list(dict.fromkeys([self.baseline, *named]))

    def gains(self, row: Row) -> dict[str, Cell]:
        """A line's gains by method."""
        return {
            self.name_of(row, scores): row.cells[column]
            for column, scores in self.columns.gains.items()
        }

    def runs(self, fraction: int | None = None) -> list[Run]:
        """The distillations behind the table, each once; those of one share of rows alone."""
        found = []
        for row in self.rows:
            for column in self.columns.scores:
                if column in SEEDLESS or fraction not in (None, row.fraction):
                    continue
                place = (row.dataset, row.teacher, row.student)
                method = self.name_of(row, column)
                found += [Run(*place, method, row.fraction, seed) for seed in self.seeds]
        return list(dict.fromkeys(found))


def read_table(path: Path) -> Table:
    """Read a table's json.

    Raises:
        ArtifactError: the file is missing, was altered, or is no table of this version.
    """
    try:
        return Table.model_validate(read_finished(path).content)
    except ValidationError as error:
        problem = error.errors()[0]
        key = ".".join(str(part) for part in problem["loc"])
        raise ArtifactError(
            f"{path}: '{key}': {problem['msg']}. Make the table again with `kd table`."
        ) from None
