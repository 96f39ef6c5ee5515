"""A table's lines for the page; those that fit open the chain behind each of their cells."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from markupsafe import Markup

from kd.audit.page_artifacts import cell_details
from kd.audit.scope import Scope
from kd.report.content import Cell, Row, Table
from kd.report.names import readable
from kd.report.words import gain_text, is_significant, score_text

MOST_LINES = 300  # of a table on the page; its csv has them all
MOST_CHAINS = 150  # lines on the page whose cells open their chain
OPEN_LINES = 40  # a longer table is closed at first


@dataclass(frozen=True)
class Shown:
    """The lines of a table that the page shows, as HTML, and how many it leaves out."""

    head: list[str]
    lines: list[list[Markup]]
    numbers: list[bool]  # by column: whether it holds numbers
    chained: int  # lines that open their chain
    left_out: int
    closed: bool


def chained_lines(table: Table, tables: Sequence[Table]) -> int:
    """How many lines of `table` open their chain: all, or its share of what a page can hold."""
    total = sum(len(other.rows) for other in tables)
    share = 1.0 if total <= MOST_CHAINS else MOST_CHAINS / total
    return min(len(table.rows), MOST_LINES, max(1, int(len(table.rows) * share)))


def shown_scores(table: Table, tables: Sequence[Table]) -> list[str]:
    """Score files behind the cells that open their chain."""
    rows = table.rows[: chained_lines(table, tables)]
    return list(
        dict.fromkeys(path for row in rows for cell in row.cells.values() for path in cell.scores)
    )


def lay_out(table: Table, tables: Sequence[Table], scope: Scope) -> Shown:
    """The table's head and lines."""
    axes = [axis for axis in table.columns.axes if axis != "metric"]
    columns = [*table.columns.scores, *table.columns.gains]
    chained = chained_lines(table, tables)
    rows = table.rows[:MOST_LINES]
    lines = [
        [
            *(Markup(escape(readable(row.axis(axis)))) for axis in axes),
            Markup(escape(row.metric)),
            *(_cell(row, name, table, scope if n < chained else None) for name in columns),
        ]
        for n, row in enumerate(rows)
    ]
    head = [*map(readable, axes), "metric", *(_name(name, table) for name in columns)]
    numbers = [False] * (len(axes) + 1) + [True] * len(columns)
    left_out = len(table.rows) - len(rows)
    return Shown(head, lines, numbers, chained, left_out, len(rows) > OPEN_LINES)


def _name(column: str, table: Table) -> str:
    if column in table.columns.gains:
        method = table.columns.gains[column]
        return "gain" if table.one_method_a_line else f"gain of {readable(method)}"
    return readable(column)


def _cell(row: Row, column: str, table: Table, scope: Scope | None) -> Markup:
    cell = row.cells.get(column)
    if cell is None:
        return Markup("")
    if column in table.columns.gains:
        text = escape(gain_text(cell, row.metric))
        value, _, interval = text.partition(" [")
        shown = f"<b>{value}</b>" if is_significant(cell) else value
        shown += f" <small>[{interval}</small>" if interval else ""
    else:
        shown = escape(score_text(cell, row.metric))
    if scope is not None and cell.scores:
        shown = cell_details(scope, shown, list(cell.scores))
    return Markup(shown + _beside(cell))


def _beside(cell: Cell) -> str:
    """What stands below a value: why there is none, or the published one."""
    if cell.value is None:
        return f"<small class='below'>{escape(cell.unavailable or '')}</small>"
    if cell.published is None:
        return ""
    told = {None: "", True: ": within", False: ": outside"}[cell.inside]
    between = (
        f" what another run would give ({cell.prediction[0]:.1f} to {cell.prediction[1]:.1f})"
        if cell.prediction and told
        else ""
    )
    apart = "" if cell.value is None else f", ours {cell.value - cell.published:+.2f}"
    return f"<small class='below'>published {cell.published:.2f}{apart}{told}{between}</small>"
