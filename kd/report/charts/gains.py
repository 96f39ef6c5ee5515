"""Gains over the baseline with their intervals, line by line (a forest plot)."""

from collections.abc import Iterator, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from kd.experiment.metrics import metric_named
from kd.report.charts.style import BAND, GREY, RULE, WIDTH, Look, looks
from kd.report.content import Cell, Row, Table
from kd.report.names import readable
from kd.report.words import is_significant

MOST_LABELS = 80  # lines that still have a name each; more are sorted by their gain
_LINE = 0.19  # inches a line


def draw_gains(table: Table) -> Figure | None:
    """One line a row, one marker a method; None where the table has no gain at all.

    Metrics of another unit, as losses in nats, have a panel and a scale of their own.
    """
    rows = [row for row in table.rows if any(_known(cell) for cell in table.gains(row).values())]
    if not rows:
        return None
    panels = _by_unit(rows)
    many = any(len(panel) > MOST_LABELS for panel in panels.values())
    # Where a line is a method, its name says so: colours would only repeat it.
    shown = looks([table.baseline]) if table.one_method_a_line else looks(table.methods())
    heights = [min(max(0.9, _LINE * len(panel)), 14.7) for panel in panels.values()]
    figure = Figure(figsize=(WIDTH, 0.7 + sum(heights) + 0.6 * len(panels)), layout="constrained")
    grid = figure.subplots(len(panels), squeeze=False, height_ratios=heights)[:, 0]
    for axes, (unit, panel) in zip(grid, panels.items(), strict=True):
        if many:
            panel = sorted(panel, key=lambda row: min(_values(table, row)))
        _draw(axes, table, panel, shown, many)
        _finish(axes, table, panel, unit, many)
    _legend(figure, table.methods()[1:], shown, one_look=table.one_method_a_line)
    return figure


def _by_unit(rows: Sequence[Row]) -> dict[str, list[Row]]:
    found: dict[str, list[Row]] = {}
    for row in rows:
        found.setdefault(metric_named(row.metric).unit, []).append(row)
    return found


def _draw(
    axes: Axes, table: Table, rows: Sequence[Row], shown: dict[str, Look], many: bool
) -> None:
    _bands(axes, rows, many)
    axes.axvline(0, color=RULE, linewidth=1, zorder=1)
    for method in table.methods()[1:]:
        look = shown.get(method, shown[table.baseline])
        _points(axes, look, list(_places(table, rows, method)), small=many)


def _known(cell: Cell) -> bool:
    return cell.value is not None


def _values(table: Table, row: Row) -> list[float]:
    return [cell.value for cell in table.gains(row).values() if cell.value is not None]


def _offsets(count: int) -> list[float]:
    """Places of a line's markers, above and below its middle."""
    step = 0.7 / max(count, 1)
    return [step * (number - (count - 1) / 2) for number in range(count)]


def _places(table: Table, rows: Sequence[Row], method: str) -> Iterator[tuple[float, float, Cell]]:
    """A method's gains: value, height in the chart, and the cell."""
    for number, row in enumerate(rows):
        found = table.gains(row)
        for offset, name in zip(_offsets(len(found)), found, strict=True):
            value = found[name].value
            if name == method and value is not None:
                yield value, number + offset, found[name]


def _points(
    axes: Axes, look: Look, places: Sequence[tuple[float, float, Cell]], *, small: bool
) -> None:
    spans = [
        (y, cell.low, cell.high)
        for _, y, cell in places
        if cell.low is not None and cell.high is not None
    ]
    if spans:
        axes.hlines(*zip(*spans, strict=True), color=look.colour, linewidth=0.9, zorder=2)
    for full in (True, False):
        shown = [(value, y) for value, y, cell in places if is_significant(cell) == full]
        axes.plot(
            [value for value, _ in shown],
            [y for _, y in shown],
            linestyle="",
            marker=look.marker,
            markersize=2.5 if small else 4.5,
            color=look.colour,
            markerfacecolor=look.colour if full else "white",
            markeredgewidth=0.9,
            zorder=3,
        )


def _bands(axes: Axes, rows: Sequence[Row], many: bool) -> None:
    """Every second dataset lies on grey."""
    if many:
        return
    datasets = list(dict.fromkeys(row.dataset for row in rows))
    for number, row in enumerate(rows):
        if datasets.index(row.dataset) % 2:
            axes.axhspan(number - 0.5, number + 0.5, color=BAND, linewidth=0, zorder=0)


def _finish(axes: Axes, table: Table, rows: Sequence[Row], unit: str, many: bool) -> None:
    axes.set_ylim(len(rows) - 0.5, -0.5)
    better = "" if _describing(rows) else ", right is better"
    interval = f"({table.level:.0%} interval{better})"
    axes.set_xlabel(f"gain over {readable(table.baseline)}, {unit} {interval}")
    axes.xaxis.set_major_locator(MaxNLocator(8))
    axes.grid(axis="x", zorder=0)
    axes.set_axisbelow(True)
    axes.tick_params(axis="y", length=0)
    if many:
        axes.set_yticks([])
        axes.set_ylabel(f"{len(rows)} lines, by their gain")
        return
    names = [_label(table, row) for row in rows]
    axes.set_yticks(range(len(rows)), names)


def _describing(rows: Sequence[Row]) -> bool:
    """Whether all lines are of metrics that are neither better nor worse."""
    return all(metric_named(row.metric).better == "neither" for row in rows)


def _label(table: Table, row: Row) -> str:
    """What tells the line from the others."""
    varying = [
        axis
        for axis in ("dataset", "test", "teacher", "student", "fraction", "method", "metric")
        if len({other.axis(axis) for other in table.rows}) > 1
        and (axis != "test" or "test" in table.columns.axes)
        and (axis != "metric" or table.several_metrics)
    ]
    parts = [
        f"{row.fraction} %" if axis == "fraction" else readable(row.axis(axis))
        for axis in varying or ["dataset"]
    ]
    better = metric_named(row.metric).better
    if "metric" in varying and better != "higher":
        parts[-1] += " (less is better)" if better == "lower" else " (neither is better)"
    return " · ".join(parts)


def _legend(
    figure: Figure, methods: Sequence[str], shown: dict[str, Look], *, one_look: bool
) -> None:
    def handle(look: Look, name: str, *, full: bool) -> Line2D:
        return Line2D(
            [], [], color=look.colour, marker=look.marker, linewidth=0.9, label=name,
            markerfacecolor=look.colour if full else "white",
        )  # fmt: skip

    neutral = Look(GREY, "o", ())
    handles = (
        [] if one_look else [handle(shown[name], readable(name), full=True) for name in methods]
    )
    handles.append(handle(neutral, "filled: significant after Holm", full=True))
    handles.append(handle(neutral, "open: not", full=False))
    figure.legend(handles=handles, loc="outside upper center", ncols=min(len(handles), 5))
