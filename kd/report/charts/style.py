"""The look of all charts, and their files: same bytes whenever they are drawn.

Colours are those of Okabe and Ito ("Color Universal Design", 2008), which people of any colour
vision tell apart. Every method also has a marker and a dash pattern of its own, so that a print
in grey loses nothing.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

from kd.provenance.files import atomic_file

BLACK, GREY, RULE, BAND = "#000000", "#6b6b6b", "#b5b5b5", "#f2f2f2"
_COLOURS = ("#000000", "#d55e00", "#0072b2", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
_MARKERS = ("o", "s", "^", "D", "v", "P", "X")
_DASHES: tuple[tuple[float, ...], ...] = (
    (),
    (5, 2),
    (1, 1.5),
    (6, 2, 1, 2),
    (3, 1),
    (8, 3),
    (2, 4),
)

WIDTH = 7.2  # inches: the text width of a page
DPI = 200
TEXT = 8  # points

_SETTINGS: dict[Any, Any] = {
    "svg.hashsalt": "kd",  # ids in the svg depend on its content alone
    "svg.fonttype": "path",  # looks the same wherever it is opened
    "font.family": "DejaVu Sans",  # comes with matplotlib
    "font.size": TEXT,
    "axes.titlesize": TEXT,
    "axes.titleweight": "bold",
    "axes.labelsize": TEXT,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.6,
    "xtick.labelsize": TEXT - 1,
    "ytick.labelsize": TEXT - 1,
    "legend.fontsize": TEXT,
    "legend.frameon": False,
    "lines.linewidth": 1.3,
    "lines.markersize": 4.5,
    "grid.color": "#dddddd",
    "grid.linewidth": 0.5,
}


@dataclass(frozen=True)
class Look:
    """How one method is drawn."""

    colour: str
    marker: str
    dashes: tuple[float, ...]


def looks(methods: Sequence[str]) -> dict[str, Look]:
    """A look for each method; beyond seven, marker and dashes shift against the colours."""
    count = len(_COLOURS)
    return {
        name: Look(
            _COLOURS[number % count],
            _MARKERS[(number + number // count) % count],
            _DASHES[(number + number // count) % count],
        )
        for number, name in enumerate(methods)
    }


@contextmanager
def drawing() -> Iterator[None]:
    """Draw with the project's settings, whatever the user's matplotlibrc says."""
    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(_SETTINGS)
        yield


def save(figure: Figure, stem: Path) -> list[Path]:
    """Write `<stem>.svg` and `<stem>.png`, without dates or versions in them."""
    stem.parent.mkdir(parents=True, exist_ok=True)
    svg, png = (stem.with_name(f"{stem.name}.{suffix}") for suffix in ("svg", "png"))
    undated = {"Date": None, "Creator": None, "Format": None, "Type": None}
    with atomic_file(svg) as staging:
        figure.savefig(staging, format="svg", metadata=undated)
    with atomic_file(png) as staging:
        figure.savefig(staging, format="png", dpi=DPI, metadata={"Software": None})
    return [svg, png]
