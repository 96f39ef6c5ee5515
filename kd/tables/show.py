"""A table on the terminal."""

import csv
from collections.abc import Mapping
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from kd.errors import ArtifactError
from kd.experiment.metrics import Metric, metric_named
from kd.experiment.schema import STATISTICS
from kd.tables.statistics import SIGNIFICANT

PLAIN_WIDTH = 140  # of a log file or a pipe, which has no width of its own


def print_table(path: Path) -> None:
    """Print the csv file `path`: two decimals, gains coloured by sign.

    Columns of statistics are shown in the cell that they belong to: `71.39 ± 0.42`, and
    `+2.50 [+1.20, +3.80]*` where a gain is significant after Holm's correction. A positive gain
    is better, whatever the metric.

    Raises:
        ArtifactError: no such file, or it is no csv.
    """
    if path.suffix != ".csv":
        raise ArtifactError(f"{path}: no table's csv. Give one, as results/table2.csv.")
    if not path.is_file():
        raise ArtifactError(f"{path}: no such table. Make it with `snakemake {path}`.")
    try:
        with path.open(encoding="utf-8", newline="") as file:
            reader = csv.DictReader(file)
            header, rows = list(reader.fieldnames or ()), list(reader)
    except (ValueError, csv.Error) as error:
        raise ArtifactError(
            f"{path}: no table's csv ({error}). Delete it and make it again."
        ) from None
    if not header:
        raise ArtifactError(f"{path}: is empty. Delete it and make it again.")
    table = Table(title=str(path))
    shown = [name for name in header if not _is_statistic(name, header)]
    for name in shown:
        table.add_column(name)
    for row in rows:
        table.add_row(*(_styled(name, row) for name in shown))
    open_console().print(table)


def open_console() -> Console:
    """A console on standard output, wide enough where that has no width of its own."""
    console = Console(highlight=False, markup=False)
    if not console.is_terminal:
        console.width = PLAIN_WIDTH
    return console


def _is_statistic(name: str, header: list[str]) -> bool:
    return any(
        name.removesuffix(f"_{end}") in header for end in STATISTICS if name.endswith(f"_{end}")
    )


def _styled(column: str, row: Mapping[str, str | None]) -> Text:
    value = _number(row[column])
    if value is None or column == "fraction":
        return Text(row[column] or "n/a")
    metric = metric_named(row.get("metric") or "")
    digits = metric.decimals
    low, high = _number(row.get(f"{column}_lo")), _number(row.get(f"{column}_hi"))
    if not column.startswith("gain"):
        sd = _number(row.get(f"{column}_sd"))
        spread = "" if sd is None else f" ± {sd:.{digits}f}"
        return Text(f"{value:.{digits}f}{spread}")
    text = f"{value:+.{digits}f}"
    if low is not None and high is not None:
        p = _number(row.get(f"{column}_p_holm"))
        mark = "*" if p is not None and p <= SIGNIFICANT else ""
        text += f" [{low:+.{digits}f}, {high:+.{digits}f}]{mark}"
    return Text(text, style=_colour(value, metric))


def _colour(gain: float, metric: Metric) -> str:
    """Green where it is better, red where it is worse; none for equal, or neither."""
    if metric.better == "neither" or gain == 0:
        return ""
    return "green" if gain > 0 else "red"


def _number(text: str | None) -> float | None:
    try:
        return float(text or "")
    except ValueError:
        return None
