"""A table as csv, at full precision: one file for its lines, one for the value of each seed."""

import csv
import io
from collections.abc import Mapping
from typing import Any

from kd.experiment.schema import BESIDE, STATISTICS
from kd.tables.cells import Line, gain_columns, score_columns, shown_axes
from kd.tables.content import Content


def axis_headers(content: Content) -> list[str]:
    """The columns that say which line it is."""
    first, *rest = shown_axes(content.spec)
    return [first, "metric", *rest]


def csv_headers(content: Content) -> list[str]:
    """All columns, in order."""
    headers = axis_headers(content)
    for column in score_columns(content.spec):
        headers += [column, *(f"{column}_{name}" for name in _spread(content, column))]
    for column in gain_columns(content.spec):
        headers += [column, *(f"{column}_{name}" for name in STATISTICS)]
    for column in content.published_columns:
        headers += [f"{kind}_{column}" for kind in BESIDE]
    return headers


def _spread(content: Content, column: str) -> tuple[str, ...]:
    """What follows a column of scores: nothing where no seed trained the model."""
    seeded = column not in score_columns(content.spec)[:2]
    return ("sd", "n") if seeded else ()


def render_csv(content: Content) -> str:
    """One line a student; a value that does not exist is an empty field."""
    text = io.StringIO()
    writer = csv.DictWriter(text, csv_headers(content), lineterminator="\n")
    writer.writeheader()
    writer.writerows(_record(content, line) for line in content.lines)
    return text.getvalue()


def _record(content: Content, line: Line) -> dict[str, Any]:
    record: dict[str, Any] = {axis: line.axes[axis] for axis in shown_axes(content.spec)}
    record["metric"] = line.metric
    for column in score_columns(content.spec):
        cell = line.cells[column]
        record[column] = cell.value
        for name in _spread(content, column):
            record[f"{column}_{name}"] = getattr(cell, name)
    for column in gain_columns(content.spec):
        record[column] = line.cells[column].value
        record |= {f"{column}_{name}": value for name, value in _gain(content, line, column)}
    for column in content.published_columns:
        beside = content.beside(line, column)
        if beside is not None:
            record[f"published_{column}"] = beside.published.value
            record[f"difference_{column}"] = beside.difference
            record[f"inside_{column}"] = yes_or_no(beside.inside)
    return record


def _gain(content: Content, line: Line, column: str) -> list[tuple[str, Any]]:
    cell, found = line.cells[column], content.comparison(line, column)
    estimated = (found.low, found.high, found.p, found.p_holm) if found else (None,) * 4
    return list(zip(STATISTICS, (*estimated, cell.sd, cell.n), strict=True))


def yes_or_no(known: bool | None) -> str | None:
    """A truth as a field: yes, no, or nothing."""
    return None if known is None else "yes" if known else "no"


def render_long_csv(content: Content, identities: Mapping[str, str | None]) -> str:
    """One line for each line, column of scores and seed, with the identity of its scores.

    The seed is empty for models that no seed trained.
    """
    axes = ["dataset", "teacher", "student", "fraction"]
    axes += ["test"] if "test" in content.spec.columns else []
    axes += ["method"] if content.spec.one_method_a_line else []
    headers = [*axes, "metric", "column", "seed", "value", "scores"]
    text = io.StringIO()
    writer = csv.DictWriter(text, headers, lineterminator="\n")
    writer.writeheader()
    for line in content.lines:
        for column in score_columns(content.spec):
            place = {axis: line.axes[axis] for axis in axes}
            for seed, value, path in _per_seed(content, line, column):
                cell = {"column": column, "seed": seed, "value": value, "scores": identities[path]}
                writer.writerow(place | {"metric": line.metric} | cell)
    return text.getvalue()


def _per_seed(content: Content, line: Line, column: str) -> list[tuple[Any, Any, str]]:
    """Seed, value and score file of each run behind a cell."""
    cell = line.cells[column]
    if not cell.scores:
        return []
    if not _spread(content, column):
        return [(None, cell.value, cell.scores[0])]
    values = cell.per_seed or {}
    runs = zip(content.spec.seeds, cell.scores, strict=True)
    return [(seed, values.get(str(seed)), path) for seed, path in runs]
