"""Stage `chart`: a table's json becomes its charts, svg and png."""

import shutil
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

from matplotlib.figure import Figure

from kd.experiment.layout import Run
from kd.experiment.stages import ChartSpec
from kd.provenance.files import atomic_directory, atomic_file
from kd.provenance.manifest import StageRecord
from kd.report.charts.gains import draw_gains
from kd.report.charts.reliability import confident_evaluations, draw_reliability
from kd.report.charts.sizes import draw_sizes
from kd.report.charts.style import drawing, save
from kd.report.charts.training import chosen_runs, draw_training
from kd.report.content import Table, read_table

SUFFIXES = ("svg", "png")


def write_charts(spec: ChartSpec, results: Path, out: Path) -> None:
    """Draw all charts that a table has something for.

    `<table>.charts/` holds each by its name. `<table>.svg` and `.png` are copies of the first of
    them that there is: the dataset-size curves of a table over shares of the training rows, the
    gains of any other.

    Args:
        spec: the table's name.
        results: the experiment's results folder.
        out: folder of the tables: its json is read, the charts are written there.

    Raises:
        ArtifactError: the table, or something it rests on, is missing or was altered.
    """
    file = out / f"{spec.table}.json"
    table = read_table(file)
    runs, answers = chosen_runs(table), confident_evaluations(table, results)
    curves = [f"{run.path}/train.jsonl" for run in runs]
    files = [f"{folder}/{name}" for folder in answers for name in _OF_AN_EVALUATION]
    inputs = {f"tables/{file.name}": file} | {path: results / path for path in (*curves, *files)}
    record = StageRecord(
        "chart", spec, inputs, ("kd.report.chart",), name=f"{spec.table}.chart", tensors=False
    )
    folder = out / f"{spec.table}.charts"
    with drawing(), atomic_directory(folder) as staging:
        names = []
        for name, figure in _figures(table, runs, answers, results):
            save(figure, staging / name)
            names.append(name)
    copies = [out / f"{spec.table}.{suffix}" for suffix in SUFFIXES]
    for suffix, target in zip(SUFFIXES, copies, strict=True):
        with atomic_file(target) as staging:
            shutil.copyfile(folder / f"{names[0]}.{suffix}", staging)
    record.write(folder, *copies, notes={"charts": names, "matplotlib": version("matplotlib")})


_OF_AN_EVALUATION = ("predictions.parquet", "scores.json")


def _figures(
    table: Table, runs: list[Run], answers: dict[str, tuple[str, str]], results: Path
) -> Iterator[tuple[str, Figure]]:
    """The charts that there are, by name, in the order of their weight."""
    drawn = {
        "sizes": draw_sizes(table),
        "gains": draw_gains(table),
        "training": draw_training(table, runs, results),
        "reliability": draw_reliability(table, answers, results),
    }
    yield from ((name, figure) for name, figure in drawn.items() if figure is not None)
