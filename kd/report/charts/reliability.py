"""Is a model right as often as it is confident? Reliability diagrams in ten bins.

Source: Guo, Pleiss, Sun and Weinberger, "On Calibration of Modern Neural Networks", ICML 2017:
expected calibration error is the mean distance of accuracy and confidence, weighted by bins.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from kd.evaluation.calibration import BINS, expected_calibration_error
from kd.evaluation.scoring import read_scores
from kd.report.charts.panels import grid, legend, line
from kd.report.charts.style import RULE, Look, looks
from kd.report.content import NATIVE, TEACHER, Table
from kd.report.names import readable

COLUMN = "confidence"
MOST_EVALUATIONS = 480  # that are read
_RIGHT = "exact_match"


@dataclass
class Answers:
    """Confidences and whether the answers were right, both in [0, 1]."""

    confidence: list[float] = field(default_factory=list)
    right: list[float] = field(default_factory=list)

    def bins(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Mean confidence, accuracy and count of the bins that hold answers."""
        confidence, right = np.array(self.confidence), np.array(self.right)
        places = np.clip(np.ceil(confidence * BINS).astype(int) - 1, 0, BINS - 1)
        count = np.bincount(places, minlength=BINS)
        there = count > 0
        sums = [np.bincount(places, values, BINS)[there] for values in (confidence, right)]
        return sums[0] / count[there], sums[1] / count[there], count[there]

    def expected_error(self) -> float:
        """Expected calibration error, in percent."""
        return expected_calibration_error(self.confidence, self.right, BINS) * 100


def confident_evaluations(table: Table, results: Path) -> dict[str, tuple[str, str]]:
    """Folders of evaluations with confidences: to the dataset, and the name of the model's line.

    A prediction file tells by its schema; none of its rows is read here. Of very many
    evaluations, some are taken, evenly.
    """
    found: dict[str, tuple[str, str]] = {}
    for row in table.rows:
        for column in table.columns.scores:
            cell = row.cells.get(column)
            for path in cell.scores if cell and column != NATIVE else ():
                found[path.rpartition("/")[0]] = (row.tested, table.name_of(row, column))
    step = -(-len(found) // MOST_EVALUATIONS) or 1
    taken = list(found.items())[::step]
    return {folder: place for folder, place in taken if _has_confidence(results / folder)}


def _has_confidence(folder: Path) -> bool:
    file = folder / "predictions.parquet"
    return file.is_file() and COLUMN in pq.read_schema(file).names


def draw_reliability(
    table: Table, evaluations: dict[str, tuple[str, str]], results: Path
) -> Figure | None:
    """One panel a dataset; a model's answers over students, teachers and seeds together."""
    found: dict[str, dict[str, Answers]] = {}
    for folder, (dataset, name) in evaluations.items():
        answers = found.setdefault(dataset, {}).setdefault(name, Answers())
        _read(results / folder, answers)
    found = {dataset: _filled(models) for dataset, models in found.items()}
    found = {dataset: models for dataset, models in found.items() if models}
    if not found:
        return None
    shown = looks([*table.methods(), TEACHER])
    figure, panels = grid([readable(name) for name in found], across=3)
    for panel, models in zip(panels, found.values(), strict=True):
        _panel(panel, models, shown)
    drawn = dict.fromkeys(name for models in found.values() for name in models)
    legend(figure, [line(shown[name], _model(name)) for name in shown if name in drawn])
    figure.supxlabel("confidence", fontsize="medium")
    figure.supylabel("share of exact matches", fontsize="medium")
    return figure


def _model(name: str) -> str:
    return "teacher" if name == TEACHER else readable(name)


def _filled(models: dict[str, Answers]) -> dict[str, Answers]:
    return {name: answers for name, answers in models.items() if answers.confidence}


def _read(folder: Path, answers: Answers) -> None:
    """Add an evaluation's answers; those without a confidence are left out."""
    scores = read_scores(folder / "scores.json")
    right = dict(zip(scores.ids, scores.per_example.get(_RIGHT, ()), strict=False))
    rows: Iterable[dict[str, object]] = pq.read_table(
        folder / "predictions.parquet", columns=["id", COLUMN]
    ).to_pylist()
    for row in rows:
        confidence = row[COLUMN]
        if isinstance(confidence, float) and np.isfinite(confidence) and str(row["id"]) in right:
            answers.confidence.append(confidence)
            answers.right.append(right[str(row["id"])] / 100)


def _panel(panel: Axes, models: dict[str, Answers], shown: dict[str, Look]) -> None:
    panel.plot([0, 1], [0, 1], color=RULE, linewidth=1, zorder=1)
    told = []
    for name, answers in models.items():
        look = shown[name]
        confidence, right, _ = answers.bins()
        panel.plot(
            confidence,
            right,
            color=look.colour,
            marker=look.marker,
            dashes=look.dashes or (None, None),
        )
        told.append(f"{_model(name)} {answers.expected_error():.1f}")
    panel.text(
        0.02,
        0.98,
        "\n".join(["expected error, %", *told][:8]),
        transform=panel.transAxes,
        va="top",
        fontsize="x-small",
    )
    panel.set_xlim(-0.02, 1.02)
    panel.set_ylim(-0.02, 1.02)
    panel.set_aspect("equal")
