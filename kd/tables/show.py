"""A table on the terminal."""

import csv
from pathlib import Path

from rich.console import Console
from rich.table import Table

from kd.errors import ArtifactError

PLAIN_WIDTH = 140  # of a log file or a pipe, which has no width of its own


def print_table(path: Path) -> None:
    """Print the csv file `path`; numbers with two decimals, gains coloured by sign.

    Raises:
        ArtifactError: no such file.
    """
    if not path.is_file():
        raise ArtifactError(f"{path}: no such table. Make it with `snakemake {path}`.")
    with path.open(encoding="utf-8", newline="") as file:
        lines = list(csv.reader(file))
    if not lines:
        raise ArtifactError(f"{path}: is empty. Delete it and make it again.")
    header, *rows = lines
    table = Table(title=str(path))
    for name in header:
        table.add_column(name)
    for row in rows:
        table.add_row(*(_styled(name, value) for name, value in zip(header, row, strict=True)))
    console = Console()
    if not console.is_terminal:
        console.width = PLAIN_WIDTH
    console.print(table)


def _styled(column: str, text: str) -> str:
    try:
        value = float(text)
    except ValueError:
        return text or "n/a"
    if not column.startswith("gain"):
        return f"{value:.2f}"
    colour = "green" if value > 0 else "red"
    return f"[{colour}]{value:+.2f}[/{colour}]"
