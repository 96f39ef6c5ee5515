"""Numbers made again from what lies below them: scores from predictions, tables from scores.

BERTScore needs its encoder, and torch; of it only the mean over its per-example values is made
again. Tables are written into a temporary folder and compared byte by byte.
"""

import csv
import io
from collections.abc import Iterator
from pathlib import Path
from statistics import fmean
from tempfile import TemporaryDirectory
from typing import get_args

from kd.audit.findings import Finding
from kd.audit.notes import Voice, counted, short
from kd.audit.outside import find_outside
from kd.audit.scope import Evaluation, Scope, TableView
from kd.errors import KdError
from kd.evaluation.predictions import read_predictions
from kd.evaluation.scoring import Aggregate, Scores, read_scores, score_rows
from kd.experiment.base import Score
from kd.experiment.schema import Evaluation as Metrics
from kd.tables.assembly import write_table

COPIED = (".csv", ".long.csv", ".md", ".json", ".tex")  # out of the folder of tables


def recomputed(voice: Voice) -> Iterator[Finding]:
    """What differs when scores and tables are made again."""
    sound = 0
    for evaluation in voice.scope.evaluations:
        if evaluation.score.content and evaluation.predict.content:
            problem = _score_problem(voice.scope, evaluation)
            sound += problem is None
            if problem:
                yield voice.about("fail", "recomputed", evaluation.score, problem)
    if sound:
        count = counted(sound, "file of scores", "files of scores")
        yield voice.passed("recomputed", f"{count} equal to what their predictions give")
    for view in voice.scope.tables:
        yield from _table(voice, view)
        yield from _copies(voice, view)


def _score_problem(scope: Scope, evaluation: Evaluation) -> str | None:
    folder = scope.results / evaluation.place
    try:
        stored = read_scores(folder / "scores.json")
        predictions = read_predictions(folder / "predictions.parquet")
        metrics = _metrics(scope, evaluation, stored)
        fresh = score_rows(predictions, Metrics(metrics=metrics))
    except KdError as error:
        return f"its scores cannot be made again: {_without_place(error, scope)}"
    if stored.ids != fresh.ids or (stored.n, stored.empty) != (fresh.n, fresh.empty):
        return f"its rows are not those of its predictions ({stored.n} scored, {fresh.n} predicted)"
    return _metric_problem(stored, fresh)


def _metrics(scope: Scope, evaluation: Evaluation, stored: Scores) -> list[Score]:
    """What to compute again: what the tables in scope show, or everything where there is none."""
    shown = {
        metric
        for view in scope.tables
        if view.spec is not None
        for metric in view.spec.metrics_on(evaluation.dataset)
    }
    return [
        metric
        for metric in get_args(Score)
        if metric != "bertscore"
        and metric in stored.metrics
        and (metric in shown or not scope.tables)
    ]


def _metric_problem(stored: Scores, fresh: Scores) -> str | None:
    for metric, found in fresh.metrics.items():
        if stored.metrics.get(metric) != found or (
            stored.per_example.get(metric) != fresh.per_example.get(metric)
        ):
            return (
                f"its {metric} is {stored.mean(metric)}, but its predictions give "
                f"{fresh.mean(metric)}"
            )
    for metric, values in stored.per_example.items():
        stated = stored.metrics.get(metric)
        if isinstance(stated, Aggregate) and stated.mean != fmean(values):
            return f"its {metric} is {stated.mean}, but its own examples average {fmean(values)}"
    return None


def _table(voice: Voice, view: TableView) -> Iterator[Finding]:
    if view.spec is None:
        yield voice.about(
            "not applicable", "table made again", view.artifact, f"no table to make: {view.problem}"
        )
        return
    recorded = view.artifact.context.get("paths", {}).get("published")
    published = find_outside(voice.scope, recorded) if recorded else None
    if recorded and published is None:
        yield voice.about(
            "not applicable",
            "table made again",
            view.artifact,
            f"the published figures beside it ({Path(recorded).name}) are not here",
        )
        return
    try:
        different = _remade(voice.scope, view, published)
    except (KdError, KeyError, TypeError) as error:
        reason = _without_place(error, voice.scope)
        yield voice.about(
            "fail", "table made again", view.artifact, f"it cannot be made again: {reason}"
        )
        return
    for name, detail in different.items():
        yield voice.about(
            "fail", "table made again", view.artifact, f"{name} is not what its scores give{detail}"
        )
    if not different:
        yield voice.passed(
            "table made again", f"{view.artifact.name}: every file equal to what its scores give"
        )


def _remade(scope: Scope, view: TableView, published: Path | None) -> dict[str, str]:
    """Files of a table that differ when it is written again, with the first difference."""
    assert view.spec is not None
    different = {}
    with TemporaryDirectory() as folder:
        write_table(view.spec, scope.results, Path(folder), published)
        for name in sorted(view.artifact.outputs):
            there, here = scope.results / "tables" / name, Path(folder) / name
            if not there.is_file() or not here.is_file():
                different[name] = "" if here.is_file() else " (it is no longer written)"
            elif there.read_bytes() != here.read_bytes():
                is_csv = name.endswith(".csv")
                different[name] = _first_difference(there, here) if is_csv else ""
    return different


def _first_difference(stored: Path, fresh: Path) -> str:
    """Line, column and both values of the first field in which two csv files differ."""
    old, new = (list(csv.reader(io.StringIO(path.read_text()))) for path in (stored, fresh))
    for number, (left, right) in enumerate(zip(old, new, strict=False), start=1):
        for column, (was, gives) in enumerate(zip(left, right, strict=False)):
            if was != gives:
                name = new[0][column]
                return f": line {number}, column {name} says {short(was)}, the scores give {gives}"
    return f": {len(old)} lines, the scores give {len(new)}"


def _copies(voice: Voice, view: TableView) -> Iterator[Finding]:
    """The table's files that were copied out of its folder, as `results/table2.csv`."""
    copy = voice.scope.target.copy
    if copy is None:
        return
    for suffix in COPIED:
        file, own = copy.with_suffix(suffix), voice.scope.results / "tables" / view.artifact.name
        original = own.with_suffix(suffix)
        if file.is_file() and original.is_file() and file.read_bytes() != original.read_bytes():
            detail = _first_difference(file, original) if suffix.endswith("csv") else ""
            yield voice.about(
                "fail",
                "copy",
                view.artifact,
                f"results/{file.name} is no copy of the table of '{voice.scope.results.name}'"
                f"{detail.replace('the scores give', 'the table says')}",
                f"snakemake --force results/{copy.stem}.csv "
                f"--config experiment={voice.scope.results.name}",
            )


def _without_place(error: Exception, scope: Scope) -> str:
    return str(error).replace(f"{scope.results}/", "").splitlines()[0]
