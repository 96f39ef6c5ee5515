"""Stage `table`: scores become `<table>.csv`, `.md` and `.json`."""

import csv
import io
import json
from pathlib import Path
from typing import Any

from tabulate import tabulate

from kd.experiment.stages import TableSpec
from kd.provenance.files import write_text
from kd.provenance.manifest import StageRecord
from kd.tables.cells import Line, build_lines, gain_columns, score_columns
from kd.tables.cost import render_costs
from kd.tables.published import Key, read_published

Published = dict[Key, float]


def write_table(spec: TableSpec, results: Path, out: Path, published: Path | None = None) -> None:
    """Write a table as csv, md and json, its manifest and its costs, into the folder `out`.

    Args:
        spec: lines, methods, metrics and seeds.
        results: the experiment's results folder.
        out: folder of the tables.
        published: csv of the paper's own scores, shown beside ours.
    """
    lines = build_lines(spec, results)
    inputs = {
        path: results / path
        for line in lines
        for cell in line.cells.values()
        for path in cell.scores
    }
    if published is not None:
        inputs["published"] = published
    record = StageRecord(
        "table", spec, inputs, ("kd.tables.assembly",), name=spec.name, external=("published",)
    )
    theirs = read_published(published) if published else {}
    paths = {suffix: out / f"{spec.name}.{suffix}" for suffix in ("csv", "md", "json")}
    write_text(paths["csv"], render_csv(spec, lines, theirs))
    write_text(paths["md"], render_markdown(spec, lines, theirs))
    identities = {role: entry["identity"] for role, entry in record.inputs.items()}
    write_text(paths["json"], render_json(spec, lines, identities))
    record.write(*paths.values())
    write_text(out / f"{spec.name}.cost.csv", render_costs(spec, results))


def _published_columns(spec: TableSpec, theirs: Published) -> dict[str, str]:
    """Columns of published values: column to the column of ours it stands beside."""
    known = {key[-1] for key in theirs}
    return {f"published_{name}": name for name in score_columns(spec) if name in known}


def _headers(spec: TableSpec, theirs: Published) -> list[str]:
    extra = [axis for axis in spec.columns if axis not in ("dataset", "teacher", "student")]
    return [
        "dataset",
        "metric",
        "teacher",
        "student",
        *extra,
        *score_columns(spec),
        *gain_columns(spec),
        *_published_columns(spec, theirs),
    ]


def _values(spec: TableSpec, line: Line, theirs: Published) -> dict[str, Any]:
    axes = line.axes
    place = (axes["dataset"], axes["teacher"], axes["student"], axes["fraction"])
    beside = {
        column: theirs.get((*place, ours))
        for column, ours in _published_columns(spec, theirs).items()
    }
    ours = {column: cell.value for column, cell in line.cells.items()}
    return axes | {"metric": line.metric} | ours | beside


def render_csv(spec: TableSpec, lines: list[Line], theirs: Published) -> str:
    """The table at full precision; a value that does not exist is an empty field."""
    text = io.StringIO()
    headers = _headers(spec, theirs)
    writer = csv.DictWriter(text, headers, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(_values(spec, line, theirs) for line in lines)
    return text.getvalue()


def render_markdown(spec: TableSpec, lines: list[Line], theirs: Published) -> str:
    """The table for reading: two decimals, gains signed, and the mean gain below."""
    headers = _headers(spec, theirs)
    rows = [_readable(_values(spec, line, theirs), headers) for line in lines]
    body = tabulate(rows, headers, tablefmt="github", disable_numparse=True)
    parts = [
        f"# {spec.title or spec.name}",
        "",
        f"Experiment `{spec.experiment}`, {_seeds(spec)}.",
        "",
        body,
        "",
        *_means(spec, lines),
        *_missing(lines),
    ]
    return "\n".join(parts).rstrip() + "\n"


def _readable(values: dict[str, Any], headers: list[str]) -> list[str]:
    return [_cell_text(header, values[header]) for header in headers]


def _cell_text(header: str, value: Any) -> str:
    if value is None:
        return "n/a"
    if not isinstance(value, float):
        return str(value)
    return f"{value:+.2f}" if header.startswith("gain") else f"{value:.2f}"


def _seeds(spec: TableSpec) -> str:
    count = len(spec.seeds)
    return "one seed" if count == 1 else f"mean over {count} seeds"


def _means(spec: TableSpec, lines: list[Line]) -> list[str]:
    found = []
    for column, scores in gain_columns(spec).items():
        method = "every method" if spec.one_method_a_line else scores
        gains = [line.cells[column].value for line in lines]
        known = [gain for gain in gains if gain is not None]
        if known:
            better = sum(gain > 0 for gain in known)
            found.append(
                f"{method} against {spec.baseline}: {sum(known) / len(known):+.2f} points on "
                f"average, better in {better} of {len(known)} lines."
            )
    return found


def _missing(lines: list[Line]) -> list[str]:
    reasons = {cell.unavailable for line in lines for cell in line.cells.values()}
    return [f"n/a: {reason}" for reason in sorted(filter(None, reasons))]


def render_json(spec: TableSpec, lines: list[Line], identities: dict[str, str | None]) -> str:
    """The table with its provenance: every cell names the scores it rests on, by identity."""
    content = {
        "experiment": spec.experiment,
        "table": spec.name,
        "seeds": spec.seeds,
        "baseline": spec.baseline,
        "rows": [_json_line(line, identities) for line in lines],
    }
    return json.dumps(content, indent=1, ensure_ascii=False) + "\n"


def _json_line(line: Line, identities: dict[str, str | None]) -> dict[str, Any]:
    cells = {
        column: {
            "value": cell.value,
            "per_seed": cell.per_seed,
            "unavailable": cell.unavailable,
            "scores": {path: identities[path] for path in cell.scores},
        }
        for column, cell in line.cells.items()
    }
    return line.axes | {"metric": line.metric, "cells": cells}
