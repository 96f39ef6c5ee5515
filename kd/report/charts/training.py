"""Training and validation loss over a run: does a method overfit less than the baseline?"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from kd.errors import ArtifactError
from kd.experiment.layout import Run
from kd.report.charts.panels import grid, legend, line
from kd.report.charts.style import GREY, Look, looks
from kd.report.content import Table
from kd.report.names import readable

MOST_RUNS = 240  # curves that are read; of more, every second, third … one
_MOST_PANELS = 16
_BINS = 20  # of the share of training done
_TRAINING, _VALIDATION = "cross_entropy", "validation_cross_entropy"


@dataclass
class _Sums:
    """Sums and counts by bin, over the runs of one method in one panel."""

    total: np.ndarray = field(default_factory=lambda: np.zeros(_BINS))
    count: np.ndarray = field(default_factory=lambda: np.zeros(_BINS))

    def add(self, shares: Sequence[float], values: Sequence[float]) -> None:
        """Add values at shares of the training in (0, 1]."""
        places = np.clip(np.ceil(np.array(shares) * _BINS).astype(int) - 1, 0, _BINS - 1)
        np.add.at(self.total, places, values)
        np.add.at(self.count, places, 1)

    def means(self) -> tuple[np.ndarray, np.ndarray]:
        """Middle of each bin that holds something, in percent of the training, and its mean."""
        there = self.count > 0
        middles = (np.arange(_BINS) + 0.5) / _BINS * 100
        return middles[there], self.total[there] / self.count[there]


def chosen_runs(table: Table) -> list[Run]:
    """The runs whose curves are drawn: those on the largest share of rows, evenly thinned."""
    runs = table.runs(max(row.fraction for row in table.rows))
    step = -(-len(runs) // MOST_RUNS)
    return runs[::step]


def draw_training(table: Table, runs: Sequence[Run], results: Path) -> Figure | None:
    """One panel a dataset and student, or, of many, a dataset: means over teachers and seeds.

    The quantity is the cross-entropy on the teacher's text, which every method has; the trained
    objectives differ. Runs without it show their objective.

    Raises:
        ArtifactError: a curve is missing or cannot be read.
    """
    axes: tuple[str, ...] = ("dataset", "student")
    if len({_place(run, axes) for run in runs}) > _MOST_PANELS:
        axes = ("dataset",)
    sums: dict[tuple[str, ...], dict[str, tuple[_Sums, _Sums]]] = {}
    for run in runs:
        methods = sums.setdefault(_place(run, axes), {})
        both = methods.setdefault(run.method, (_Sums(), _Sums()))
        _add(results / run.path / "train.jsonl", both)
    if not sums:
        return None
    several = len({place[-1] for place in sums}) > 1
    titles = [" · ".join(map(readable, place if several else place[:1])) for place in sums]
    figure, panels = grid(titles, across=3)
    shown = looks(table.methods())
    for panel, methods in zip(panels, sums.values(), strict=True):
        for method, (training, validation) in methods.items():
            _curves(panel, shown[method], training, validation)
        panel.yaxis.set_major_locator(MaxNLocator(4))
        panel.set_ylim(bottom=0)
    _explain(figure, shown)
    return figure


def _place(run: Run, axes: Sequence[str]) -> tuple[str, ...]:
    return tuple(str(getattr(run, axis)) for axis in axes)


def _add(path: Path, both: tuple[_Sums, _Sums]) -> None:
    try:
        records = [json.loads(text) for text in path.read_text(encoding="utf-8").splitlines()]
        steps = max((record["step"] for record in records), default=1)
        names = ((_TRAINING, "loss"), (_VALIDATION, "validation_loss"))
        for sums, (first, second) in zip(both, names, strict=True):
            known = [record for record in records if first in record or second in record]
            values = [record.get(first, record.get(second)) for record in known]
            sums.add([record["step"] / steps for record in known], values)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, ZeroDivisionError) as error:
        raise ArtifactError(f"{path}: no training curve to read ({error}).") from None


def _curves(panel: Axes, look: Look, training: _Sums, validation: _Sums) -> None:
    panel.plot(*training.means(), color=look.colour, linewidth=0.8, alpha=0.6, zorder=2)
    panel.plot(
        *validation.means(),
        color=look.colour,
        marker=look.marker,
        markersize=3,
        dashes=look.dashes or (None, None),
        zorder=3,
    )
    # The first tenth is off any scale that shows the end.
    means = [sums.means() for sums in (training, validation)]
    shown = np.concatenate([values[middles > 10] for middles, values in means])
    known = [panel.get_ylim()[1]] if panel.lines[2:] else []
    panel.set_ylim(0, max([*known, float(shown.max(initial=0.0)) * 1.1, 1e-6]))


def _explain(figure: Figure, shown: dict[str, Look]) -> None:
    thin = Line2D([], [], color=GREY, linewidth=0.8, alpha=0.6, label="training")
    thick = Line2D([], [], color=GREY, marker="o", markersize=3, label="validation")
    legend(figure, [*(line(look, name) for name, look in shown.items()), thick, thin])
    figure.supxlabel("training done, %", fontsize="medium")
    figure.supylabel("cross-entropy on\nthe teacher's text, nats a token", fontsize="medium")
