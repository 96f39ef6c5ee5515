"""A finished experiment made by hand, whose table is written in the json that charts read."""

import json
import shutil

import pytest
import yaml

from kd.provenance.canonical import digest, file_digest
from kd.report.content import Table
from tests.audit.fabrication import fabricate, run_of
from tests.audit.small_files import DATASET, STUDENT, TEACHER

PLACE = {"dataset": DATASET, "teacher": TEACHER, "student": STUDENT}


def gain(value, half=1.0, p=0.01):
    return {
        "value": value,
        "low": value - half,
        "high": value + half,
        "p": p,
        "p_holm": p,
        "over": "examples",
    }


def row(scores, gains, **place):
    cells = {name: {"value": value} for name, value in scores.items()}
    return PLACE | {"fraction": 100, "metric": "f1"} | place | {"cells": cells | gains}


def content(rows, methods=("uld",), **more):
    return {
        "schema_version": 2,
        "experiment": "tiny",
        "table": "table2",
        "title": "Overall",
        "baseline": "teacher_text",
        "seeds": [0, 1, 2],
        "columns": {
            "axes": ["dataset", "teacher", "student"],
            "scores": ["teacher_score", "native", "teacher_text", *methods],
            "gains": {f"gain_{name}": name for name in methods},
        },
        "rows": rows,
    } | more


def table(rows, methods=("uld",), **more):
    return Table.model_validate(content(rows, methods, **more))


STATED = {
    "table": "table2",
    "text": "Students learn more from ULD.",
    "source": "table 2",
    "left": {"method": "uld"},
    "right": {"method": "teacher_text"},
}
CLAIM = {
    "name": "better",
    "text": "Students learn more from ULD.",
    "source": "table 2",
    "outcome": "undecided",
    "value": 25.0,
    "low": -1.5,
    "high": 51.5,
    "sentence": "Undecided at this power: +25.00 points [-1.50, +51.50] over examples.",
    "definition": {key: STATED[key] for key in ("table", "left", "right")},
}


def one_line():
    """The fabricated experiment's only line, with the scores behind each cell."""
    scores = {"teacher_score": 95.0, "native": 20.0, "teacher_text": 50.0, "uld": 75.0}
    found = row(scores, {"gain_uld": gain(25.0)})
    folders = {
        "teacher_score": [f"teachers/{TEACHER}/{DATASET}"],
        "native": [f"native/{DATASET}/{STUDENT}"],
    } | {name: [run_of(name, seed).path for seed in range(3)] for name in ("teacher_text", "uld")}
    for name, subjects in folders.items():
        paths = [f"{subject}/eval/{DATASET}/scores.json" for subject in subjects]
        found["cells"][name]["scores"] = dict.fromkeys(paths)
    found["cells"]["uld"] |= {
        "sd": 2.0,
        "n": 3,
        "published": 74.0,
        "prediction": [70.0, 80.0],
        "inside": True,
    }
    both = found["cells"]["uld"]["scores"] | found["cells"]["teacher_text"]["scores"]
    found["cells"]["gain_uld"]["scores"] = both
    return found


def rewrite_table(world, found):
    """Put a table's content in place of what lies there, and into the manifest."""
    rewrite(world.table.with_suffix(".json"), found)


def rewrite(file, found):
    """Put `found` into a table's json, and its digest into the manifest."""
    manifest = file.with_suffix(".manifest.json")
    file.write_text(json.dumps(found), encoding="utf-8")
    recorded = json.loads(manifest.read_text(encoding="utf-8"))
    recorded["hashed"]["outputs"][file.name] = file_digest(file)
    recorded["identity"] = digest(recorded["hashed"])
    manifest.write_text(json.dumps(recorded), encoding="utf-8")


@pytest.fixture(scope="session")
def made(tmp_path_factory):
    """The finished experiment. Read only."""
    world = fabricate(tmp_path_factory.mktemp("report") / "world")
    mean = {"column": "gain_uld", "value": 25.0, "better": 1, "lines": 1}
    rewrite_table(world, content([one_line()], means=[mean], claims=[CLAIM]))
    stated = yaml.safe_load(world.file.read_text()) | {"claims": {"better": STATED}}
    world.file.write_text(yaml.safe_dump(stated))
    # Its charts are of the table before.
    for path in world.table.parent.glob("table2.chart*"):
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    return world


@pytest.fixture
def world(made, tmp_path):
    """A copy for a test to write into."""
    return made.copy(tmp_path / "world")
