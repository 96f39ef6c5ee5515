"""A table as json: for programs, and for whoever asks what a number rests on.

Schema 2. Every cell names its score files by identity; `kd claims`, charts and reports read
this file instead of the scores.
"""

import json
from collections.abc import Mapping
from math import isfinite
from typing import Any

from kd.experiment.claims import Claim, NamedClaim
from kd.tables.cells import Cell, Line, gain_columns, score_columns, shown_axes
from kd.tables.claim_sentences import describe
from kd.tables.claims import Verdict
from kd.tables.content import Content, MeanGain
from kd.tables.statistics import LEVEL

SCHEMA = 2
AXES = ("dataset", "test", "teacher", "student", "fraction", "method")

Identities = Mapping[str, str | None]


def render_json(content: Content, identities: Identities) -> str:
    """The table with its statistics, its claims and the provenance of every cell.

    Args:
        content: the table.
        identities: of score files, by path.
    """
    spec = content.spec
    document = {
        "schema_version": SCHEMA,
        "experiment": spec.experiment,
        "table": spec.name,
        "title": spec.title,
        "baseline": spec.baseline,
        "seeds": spec.seeds,
        "level": LEVEL,
        "resamples": content.resamples,
        "columns": {
            "axes": shown_axes(spec),
            "scores": score_columns(spec),
            "gains": gain_columns(spec),
        },
        "rows": [_line(content, line, identities) for line in content.lines],
        "means": [_mean(mean) for mean in content.means],
        "claims": [_claim(claim, verdict) for claim, verdict in content.verdicts],
    }
    return json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def _line(content: Content, line: Line, identities: Identities) -> dict[str, Any]:
    axes = {axis: line.axes[axis] for axis in AXES if axis in line.axes}
    cells = {
        column: _score(content, line, column, identities) for column in score_columns(content.spec)
    }
    gains = {
        column: _gain(content, line, column, identities) for column in gain_columns(content.spec)
    }
    return axes | {"metric": line.metric, "cells": cells | gains}


def _common(cell: Cell, identities: Identities) -> dict[str, Any]:
    return {
        "value": cell.value,
        "sd": cell.sd,
        "n": cell.n,
        "per_seed": cell.per_seed,
        "unavailable": cell.unavailable,
        "scores": {path: identities[path] for path in cell.scores},
    }


def _score(content: Content, line: Line, column: str, identities: Identities) -> dict[str, Any]:
    beside = content.beside(line, column)
    found = _common(line.cells[column], identities)
    if beside is None:
        return found | {"published": None, "prediction": None, "inside": None}
    return found | {
        "published": beside.published.value,
        "published_source": beside.published.source,
        "published_note": beside.published.note,
        "difference": beside.difference,
        "prediction": beside.prediction,
        "inside": beside.inside,
    }


def _gain(content: Content, line: Line, column: str, identities: Identities) -> dict[str, Any]:
    found = content.comparison(line, column)
    statistics = {
        name: getattr(found, name, None) for name in ("low", "high", "p", "p_holm", "over")
    }
    return _common(line.cells[column], identities) | statistics


def _mean(mean: MeanGain) -> dict[str, Any]:
    return {
        "column": mean.column,
        "method": mean.method,
        "value": mean.value,
        "low": mean.low,
        "high": mean.high,
        "over": mean.over,
        "better": mean.better,
        "lines": mean.lines,
    }


def _claim(claim: NamedClaim, verdict: Verdict) -> dict[str, Any]:
    return {
        "name": claim.name,
        "text": claim.text,
        "source": claim.source,
        "outcome": verdict.outcome,
        "value": verdict.value,
        "low": verdict.low,
        "high": verdict.high,
        "margin": verdict.margin,
        "decidable": _finite(verdict.decidable),
        "lines": verdict.lines,
        "over": verdict.over,
        "reason": verdict.reason,
        "sentence": describe(claim, verdict),
        "definition": definition(claim),
    }


def definition(claim: Claim) -> dict[str, Any]:
    """What a claim says besides its words, defaults left out: edited, it is another claim."""
    words = {"name", "text", "source"}
    return claim.model_dump(mode="json", exclude=words, exclude_defaults=True)


def _finite(value: float | None) -> float | None:
    """JSON knows no infinity: an effect that nothing could decide is null."""
    return value if value is not None and isfinite(value) else None
