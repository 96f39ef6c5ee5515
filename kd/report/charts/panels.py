"""Small multiples: a grid of panels that share what they can."""

import math
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from kd.report.charts.style import WIDTH, Look
from kd.report.names import readable

_ACROSS = 4  # panels in a row, at most
_HEIGHT = 1.75  # inches a row of panels


def grid(titles: Sequence[str], *, across: int = _ACROSS) -> tuple[Figure, list[Axes]]:
    """A figure with one titled panel for each title."""
    columns = min(across, len(titles))
    lines = math.ceil(len(titles) / columns)
    width = WIDTH if columns > 1 else WIDTH * 0.6
    figure = Figure(figsize=(width, 0.7 + _HEIGHT * lines), layout="constrained")
    panels = list(figure.subplots(lines, columns, squeeze=False).flat)
    for panel, title in zip(panels, titles, strict=False):
        panel.set_title(title, loc="left")
        panel.grid(True)
        panel.set_axisbelow(True)
    for panel in panels[len(titles) :]:
        panel.set_visible(False)
    return figure, panels[: len(titles)]


def line(look: Look, name: str, *, marker: bool = True) -> Line2D:
    """A method's entry in a legend."""
    return Line2D(
        [],
        [],
        color=look.colour,
        marker=look.marker if marker else "",
        dashes=look.dashes or (None, None),
        label=readable(name),
    )


def legend(figure: Figure, handles: Sequence[Line2D]) -> None:
    """One legend for all panels, above them."""
    figure.legend(handles=list(handles), loc="outside upper center", ncols=min(len(handles), 5))
