"""Malformed content is a finding, never a crash."""

import json
import random
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from kd.audit.page import render_page
from kd.audit.results import audit_results
from kd.audit.scope import Settings
from kd.audit.target import table_target
from kd.errors import KdError
from kd.provenance.canonical import digest
from tests.audit.fabrication import World

VALUES: list[Any] = [None, 0, -1, 1e308, "", [], {}, "x", True, {"a": 1}, ["q"], float("nan")]


def places(value: Any, place: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every place in nested JSON."""
    items = value.items() if isinstance(value, dict) else enumerate(value)
    inside = [
        found
        for key, item in items
        for found in (
            [(*place, key)] + (places(item, (*place, key)) if isinstance(item, dict | list) else [])
        )
    ]
    return inside


def spoil_at_random(file: Path, generator: random.Random) -> None:
    """Set one value in a JSON file to another, or remove it; a manifest is hashed anew."""
    content = json.loads(file.read_text(encoding="utf-8"))
    *outer, last = generator.choice(places(content))
    inner = content
    for key in outer:
        inner = inner[key]
    if isinstance(inner, dict) and generator.random() < 0.3:
        del inner[last]
    else:
        inner[last] = generator.choice(VALUES)
    if "identity" in content:
        with suppress(ValueError):  # NaN has no canonical form
            content["identity"] = digest(content.get("hashed"))
    file.write_text(json.dumps(content), encoding="utf-8")


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # arithmetic on 1e308
@pytest.mark.parametrize("seed", range(40))
def test_any_spoilt_json_is_reported_not_crashed_on(spoilt: World, seed: int) -> None:
    generator = random.Random(seed)
    files = [*spoilt.results.rglob("*.manifest.json"), *spoilt.results.rglob("scores.json")]
    spoil_at_random(generator.choice(sorted(files)), generator)
    settings = Settings(experiment=str(spoilt.file), checkout=spoilt.root)
    try:
        report, scope = audit_results(table_target(spoilt.table), settings)
    except KdError:
        return
    assert report.to_json() and render_page(report, scope)


@pytest.mark.parametrize("text", ["{}\n", "[1]\n", '{"step": null}\n', "1\n", ""])
def test_any_spoilt_curve_is_reported(spoilt: World, text: str) -> None:
    (spoilt.run() / "train.jsonl").write_text(text, encoding="utf-8")
    settings = Settings(experiment=str(spoilt.file), checkout=spoilt.root)
    report, _ = audit_results(table_target(spoilt.table), settings)
    assert report.findings[0].rule == "outputs"
