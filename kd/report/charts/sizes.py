"""Scores against the share of training rows (a dataset-size ablation)."""

from collections.abc import Sequence
from statistics import fmean

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from kd.experiment.metrics import Metric, metric_named
from kd.report.charts.panels import grid, legend, line
from kd.report.charts.style import GREY, Look, looks
from kd.report.content import SCORE, SEEDLESS, TEACHER, Cell, Row, Table
from kd.report.names import readable

_MOST_PANELS = 12
_ROOM = 1.5  # by how much the teacher's score may widen what a panel shows


def draw_sizes(table: Table) -> Figure | None:
    """One panel a dataset and pair of models; of many, one a dataset with the mean of its pairs.

    None where all lines have the same share.
    """
    if not table.several_fractions:
        return None
    axes: tuple[str, ...] = ("dataset", "test", "teacher", "student", "metric")
    if len({_place(row, axes) for row in table.rows}) > _MOST_PANELS:
        axes = ("dataset", "test", "metric")
    places = list(dict.fromkeys(_place(row, axes) for row in table.rows))
    titles = [" · ".join(_titles(place, places)) for place in places]
    figure, panels = grid(titles, across=2 if len(titles) in (2, 4) else 3)
    shown = looks(table.methods())
    for panel, place in zip(panels, places, strict=True):
        _panel(panel, table, [row for row in table.rows if _place(row, axes) == place], shown)
    teacher = Line2D([], [], color=GREY, linewidth=1, label="teacher, where near")
    legend(figure, [*(line(look, name) for name, look in shown.items()), teacher])
    figure.supxlabel("share of the training rows, %", fontsize="medium")
    bars = f"(bars: {table.level:.0%} interval of the gain)"
    figure.supylabel(f"{_unit(table)}  {bars}", fontsize="medium")
    return figure


def _place(row: Row, axes: Sequence[str]) -> tuple[str, ...]:
    return tuple(row.axis(axis) for axis in axes)


def _titles(place: tuple[str, ...], places: Sequence[tuple[str, ...]]) -> list[str]:
    """The parts of a panel's place that tell it from the others; the dataset always."""
    varies = [len({other[number] for other in places}) > 1 for number in range(len(place))]
    shown = [number for number in range(len(place)) if number == 0 or varies[number]]
    return [_title(place[number], last=number == len(place) - 1) for number in shown]


def _title(part: str, *, last: bool) -> str:
    """A part of a panel's place; of a metric, the last, also its direction and unit."""
    metric = metric_named(part) if last else Metric()
    told = [
        *(["less is better"] if metric.better == "lower" else []),
        *([metric.unit] if metric.unit != "points" else []),
    ]
    return readable(part) + (f" ({', '.join(told)})" if told else "")


def _unit(table: Table) -> str:
    """The unit of the scores; a panel of another one says so in its title."""
    units = {metric_named(row.metric).unit for row in table.rows}
    return "score, %" if "points" in units else f"loss, {units.pop()}"


def _panel(panel: Axes, table: Table, rows: list[Row], shown: dict[str, Look]) -> None:
    shares = sorted({row.fraction for row in rows})
    for method, look in shown.items():
        _curve(panel, table, rows, method, look)
    teacher = _mean([row.cells[TEACHER] for row in rows if TEACHER in row.cells])
    low, high = panel.get_ylim()
    if teacher is not None and max(high, teacher) - min(low, teacher) <= _ROOM * (high - low):
        panel.axhline(teacher, color=GREY, linewidth=1, zorder=1)
    panel.set_xticks(shares)
    panel.yaxis.set_major_locator(MaxNLocator(5))


def _curve(panel: Axes, table: Table, rows: list[Row], method: str, look: Look) -> None:
    points = []
    for share in sorted({row.fraction for row in rows}):
        here = [row for row in rows if row.fraction == share]
        value = _mean([cell for row in here if (cell := _score(table, row, method))])
        if value is not None:
            points.append((share, value))
            if len(here) == 1:
                _interval(panel, table, here[0], method, look)
    if points:
        panel.plot(
            *zip(*points, strict=True),
            color=look.colour,
            marker=look.marker,
            dashes=look.dashes or (None, None),
            zorder=3,
        )


def _score(table: Table, row: Row, method: str) -> Cell | None:
    for column in table.columns.scores:
        if column not in SEEDLESS and table.name_of(row, column) == method:
            return row.cells.get(column)
    return row.cells.get(SCORE) if row.method == method else None


def _interval(panel: Axes, table: Table, row: Row, method: str, look: Look) -> None:
    """The interval of the gain, laid on the baseline's score."""
    gain, start = table.gains(row).get(method), _score(table, row, table.baseline)
    if gain is None or start is None or None in (gain.low, gain.high, start.value):
        return
    assert start.value is not None and gain.low is not None and gain.high is not None
    sign = metric_named(row.metric).sign  # a gain is a decrease where less is better
    ends = [start.value + sign * gain.low, start.value + sign * gain.high]
    panel.plot([row.fraction] * 2, ends, color=look.colour, linewidth=0.9, zorder=2)


def _mean(cells: Sequence[Cell]) -> float | None:
    values = [cell.value for cell in cells if cell.value is not None]
    return fmean(values) if values else None
