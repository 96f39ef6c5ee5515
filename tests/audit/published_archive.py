"""A small archive in the ULD authors' layout, made up here, whose scores are right."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kd.audit.findings import Finding, Report
from kd.audit.published.protocols.uld import PROTOCOL

ANIMALS = "cat dog owl fox hen bee ant elk cow pig rat bat".split()
TEACHER, STUDENT, DATASET = "teach-7b", "pupil-1m", "zoo"
TEXT = f"{STUDENT}/{DATASET}/{TEACHER}/d0/100"
ULD = f"{STUDENT}/{DATASET}/{TEACHER}/d1.5/100"
TEACHERS = f"original/{TEACHER}/{DATASET}/untitled"

Line = dict[str, Any]


def answers(rows: int, wrong_every: int, offset: int = 0) -> list[Line]:
    """Predictions of which every `wrong_every`-th says one word of two."""
    lines = []
    for row in range(rows):
        first, second = ANIMALS[row % 12], ANIMALS[(row * 5 + 1) % 12]
        said = first if (row + offset) % wrong_every == 0 else f"{first} {second}"
        lines.append({"answers": f"{first} {second} {row}", "prediction_text": f"{said} {row}"})
    return lines


def scores(lines: Sequence[Line], **declared: Any) -> dict[str, Any]:
    """What the authors' script would publish of `lines`: percent with two decimals."""
    text = "\n".join(json.dumps(line) for line in lines)
    found = PROTOCOL.score(PROTOCOL.rows(text)).authors
    bert = {"f1_bert": 50.0, "precision_bert": 51.0, "recall_bert": 49.0}
    rounded = {name: round(value, 2) for name, value in found.items()}
    return declared | {"samples_number": len(lines)} | rounded | bert


def publish(root: Path, folder: str, lines: Sequence[Line] | None, **changes: Any) -> Path:
    """Write a score file and its predictions; `changes` are made to the scores, None removes.

    Without `lines` there are no predictions, and all scores have to be given.
    """
    *_, place, step = folder.split("/")
    few_shot = place == DATASET or step in ("titled", "untitled")
    shots = changes.pop("shots", 3 if few_shot else 0)
    model = folder.split("/")[1] if few_shot else f"home/train/{_order(folder)}"
    declared = {"model": model, "dataset": f"home/{_dataset(folder, few_shot)}"}
    declared |= {"title": step == "titled", "number_few_shot": shots}
    content = (scores(lines, **declared) if lines is not None else declared) | changes
    target = root / folder / f"{shots}shots.json"
    target.parent.mkdir(parents=True, exist_ok=True)
    kept = {name: value for name, value in content.items() if value is not None}
    target.write_text(json.dumps(kept, indent=4))
    if lines is not None:
        predictions = target.with_name(f"predictions_{target.name}")
        predictions.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    return target


def _order(folder: str) -> str:
    """The authors trained in TEACHER/STUDENT/DATASET/…, and benchmark in STUDENT/DATASET/…."""
    student, dataset, teacher, *rest = folder.split("/")[-5:]
    return "/".join([teacher, student, dataset, *rest])


def _dataset(folder: str, few_shot: bool) -> str:
    return folder.split("/")[-2] if few_shot else folder.split("/")[-4]


def sound_archive(root: Path) -> Path:
    """A teacher, and a student distilled by two methods, over 60 rows; ULD is clearly better."""
    publish(root, TEACHERS, answers(60, 5), shots=0)
    publish(root, TEXT, answers(60, 2))
    publish(root, ULD, answers(60, 4, offset=1))
    return root


def found(report: Report, check: str, subject: str = "") -> list[Finding]:
    """The findings of `check` about subjects that contain `subject`."""
    return [f for f in report.findings if f.check == check and subject in f.subject]


def statuses(report: Report) -> dict[str, set[str]]:
    """Per check, the statuses of its findings."""
    checks: dict[str, set[str]] = {}
    for finding in report.findings:
        checks.setdefault(finding.check, set()).add(finding.status)
    return checks
