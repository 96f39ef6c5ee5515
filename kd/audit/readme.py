"""The README's figures against the results that they were taken from.

A comment above a Markdown table says whose figures it shows, and on which kind of machine they
were measured:

    <!-- figures: experiment=micro table=table2 seeds=1 machine=x86_64/AVX512 -->

On that kind of machine, with as many seeds, every figure must equal the result to its last
digit. Elsewhere other bits make another training, and only a wide tolerance applies.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from kd.audit.findings import Finding
from kd.audit.notes import Voice, counted, some
from kd.audit.scope import TableView
from kd.tables.cells import GAIN, TEACHER, Line

ELSEWHERE = 5.0  # points that a figure may be off on another kind of machine

_COMMENT = re.compile(r"<!--\s*figures:\s*(?P<values>[^>]*?)\s*-->")
_TEACHER = re.compile(r"^teacher \((?P<name>[^)]+)\)$")
_NOTHING = ("", "n/a", "-", "–", "—")  # how a README shows that there is no figure
_AXES = ("dataset", "test", "teacher", "student", "fraction", "method", "metric")


@dataclass(frozen=True)
class Figures:
    """One table of a README: what its comment says, its headers, and its rows of text."""

    values: dict[str, str]
    headers: list[str]
    rows: list[list[str]]


def readme_figures(voice: Voice) -> Iterator[Finding]:
    """Compare every table of figures that belongs to a table in scope."""
    path = voice.scope.settings.checkout / "README.md"
    shown = list(read_figures(path)) if path.is_file() else []
    compared = False
    for view in voice.scope.tables:
        for figures in shown:
            wanted = {"experiment": voice.scope.results.name, "table": view.artifact.name}
            if view.lines and wanted.items() <= figures.values.items():
                compared = True
                yield _compare(voice, view, figures)
    if not compared:
        name = voice.scope.results.name
        yield voice.not_applicable("README", f"the README shows no figures of '{name}'")


def read_figures(path: Path) -> Iterator[Figures]:
    """The tables of a Markdown file that follow a comment `figures: …`."""
    lines = path.read_text(encoding="utf-8").splitlines()
    for number, line in enumerate(lines):
        found = _COMMENT.search(line)
        if found is None:
            continue
        values = dict(part.partition("=")[::2] for part in found["values"].split())
        table = list(_table_after(lines[number + 1 :]))
        if len(table) > 2:
            yield Figures(values, [header.lower() for header in table[0]], table[2:])


def _table_after(lines: list[str]) -> Iterator[list[str]]:
    begun = False
    for line in lines:
        if line.startswith("|"):
            begun = True
            yield [cell.strip().strip("`*") for cell in line.strip().strip("|").split("|")]
        elif begun or "<!--" in line:
            return


def _compare(voice: Voice, view: TableView, figures: Figures) -> Finding:
    tolerance = None if _is_reference(voice, view, figures) else ELSEWHERE
    wrong: list[str] = []
    right = 0
    for row in figures.rows:
        for name, text, value in _pairs(view, figures, row):
            if _agrees(text, value, tolerance):
                right += 1
            else:
                wrong.append(f"{name} {text}, here {'n/a' if value is None else f'{value:.2f}'}")
    where = "here" if tolerance is None else f"within {ELSEWHERE:g} points, on another machine"
    if not wrong:
        return voice.passed("README", f"{counted(right, 'figure')} as {where}")
    return voice.say(
        "fail" if tolerance is None else "warn",
        "README",
        "README.md",
        f"{counted(len(wrong), 'figure')} of {right + len(wrong)} not as {where}: {some(wrong)}",
        artifacts=[view.artifact],
    )


def _is_reference(voice: Voice, view: TableView, figures: Figures) -> bool:
    """Whether the results were made on the kind of machine, and with the seeds, of the README."""
    machines = {
        f"{artifact.numerics.get('machine')}/{artifact.numerics.get('cpu_capability')}"
        for artifact in voice.scope.of_stage("distill")
    }
    seeds = len(view.spec.seeds) if view.spec else 0
    return machines == {figures.values.get("machine")} and figures.values.get("seeds") == str(seeds)


def _pairs(
    view: TableView, figures: Figures, row: list[str]
) -> Iterator[tuple[str, str, float | None]]:
    """Each figure of a README's row, by name, with the value of the same cell in the results."""
    named = [found["name"] for found in map(_TEACHER.match, figures.headers) if found]
    axes = {"teacher": named[0]} if named else {}
    cells = dict(zip(figures.headers, row, strict=False))
    axes |= {axis: cells[axis] for axis in _AXES if axis in cells}
    lines = [line for line in view.lines if _matches(line, axes)]
    for header, text in cells.items():
        column = _column(header, view)
        if column is not None:
            value = lines[0].cells[column].value if len(lines) == 1 else None
            yield f"{column} of {'/'.join(axes.values())}:", text, value


def _matches(line: Line, axes: dict[str, str]) -> bool:
    own = {**line.axes, "metric": line.metric}
    return all(str(own.get(axis)) == value for axis, value in axes.items())


def _column(header: str, view: TableView) -> str | None:
    """The table's column that a README's header means; None for axes and metrics."""
    if _TEACHER.match(header):
        return TEACHER
    columns = view.lines[0].cells
    name = header.replace(" ", "_")
    if name == GAIN and GAIN not in columns:
        gains = [column for column in columns if column.startswith(f"{GAIN}_")]
        return gains[0] if len(gains) == 1 else None
    return name if name in columns else None


def _agrees(text: str, value: float | None, tolerance: float | None) -> bool:
    try:
        shown = float(text.replace("−", "-"))
    except ValueError:
        return value is None and text in _NOTHING
    if value is None:
        return False
    decimals = len(text.partition(".")[2])
    return abs(shown - value) <= (tolerance or 0.5 * 10**-decimals + 1e-9)
