"""What models wrote: empty answers, cut answers, rows that were left out, and who is better."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from kd.audit.findings import Finding, Status
from kd.audit.notes import Voice, cell_name, counted, some
from kd.audit.scope import Evaluation
from kd.errors import KdError
from kd.evaluation.scoring import Aggregate, Scores, read_scores
from kd.experiment.metrics import metric_named
from kd.tables.cells import GAIN, TEACHER, Line

# Shares from which on a result is doubtful, and from which on it measures nothing.
EMPTY_WARNS, EMPTY_FAILS = 0.1, 0.5
CUT_WARNS = 0.25
DROPPED_WARNS, DROPPED_FAILS = 0.05, 0.5


def answers(voice: Voice) -> Iterator[Finding]:
    """Whether teachers answered at all: every method learns from these texts."""
    sound = []
    for artifact in voice.scope.of_stage("answer"):
        rows = _read_answers(voice.scope.results / artifact.folder / "answers.parquet")
        if not rows:
            continue  # integrity says why
        empty = sum(not str(row.get("answer") or "").strip() for row in rows) / len(rows)
        if empty >= EMPTY_WARNS:
            yield voice.about(
                _worse(empty, EMPTY_FAILS),
                "teacher answers",
                artifact,
                f"{empty:.0%} of the {len(rows)} answers that students learn from are empty",
                share=empty,
            )
        else:
            sound.append(f"{empty:.0%} of {len(rows)}")
    if sound:
        yield voice.passed("teacher answers", f"empty: {some(sound)}")


def _worse(share: float, fails: float) -> Status:
    return "fail" if share >= fails else "warn"


def _read_answers(path: Path) -> list[dict[str, Any]]:
    try:
        found: list[dict[str, Any]] = pq.read_table(path, columns=["answer"]).to_pylist()
    except (OSError, pa.ArrowException):
        return []
    return found


def predictions(voice: Voice) -> Iterator[Finding]:
    """Whether models answered the test rows, and were let finish."""
    found = [
        (one, _read_scores(voice.scope.results / one.place)) for one in voice.scope.evaluations
    ]
    known = [(one, scores) for one, scores in found if scores is not None]
    empty = [
        (one, f"{one.place} ({scores.empty} of {scores.n})")
        for one, scores in known
        if scores.empty >= EMPTY_WARNS * scores.n
    ]
    cut = [
        (one, f"{one.place} ({scores.truncated} of {scores.n})")
        for one, scores in known
        if scores.truncated >= CUT_WARNS * scores.n
    ]
    for one, scores in known:
        # A student that was not distilled may well know of no answer.
        if scores.empty == scores.n and not one.subject.startswith("native/"):
            problem = f"all {scores.n} answers are empty"
            yield voice.about("fail", "empty predictions", one.score, problem)
    yield from _many(voice, "empty predictions", empty, f"at least {EMPTY_WARNS:.0%} empty answers")
    yield from _many(
        voice, "cut predictions", cut, f"at least {CUT_WARNS:.0%} answers cut at max_new_tokens"
    )
    if known and not empty and not cut:
        yield voice.passed("predictions", f"{counted(len(known), 'evaluation')} of whole answers")


def _many(
    voice: Voice, rule: str, found: list[tuple[Evaluation, str]], what: str
) -> Iterator[Finding]:
    """One warning about all evaluations that share a weakness."""
    if found:
        yield voice.say(
            "warn",
            rule,
            some([name for _, name in found]),
            f"{counted(len(found), 'evaluation')} with {what}",
            artifacts=[one.score for one, _ in found],
        )


def dropped_rows(voice: Voice) -> Iterator[Finding]:
    """How many rows were left out of training, silently as far as the table shows."""
    sound = 0
    for artifact in voice.scope.of_stage("distill"):
        counts = artifact.notes.get("counts", {}).get("train")
        if not isinstance(counts, dict) or not counts.get("rows"):
            continue
        dropped = sum(value for name, value in counts.items() if name.startswith("dropped"))
        share = dropped / (dropped + counts["rows"])
        if share < DROPPED_WARNS:
            sound += 1
            continue
        yield voice.about(
            _worse(share, DROPPED_FAILS),
            "dropped rows",
            artifact,
            f"{dropped} of {dropped + counts['rows']} training rows were dropped, as too long or "
            "without an answer",
            share=share,
        )
    if sound:
        yield voice.passed(
            "dropped rows", f"{counted(sound, 'student')} learned from nearly all rows"
        )


def _read_scores(folder: Path) -> Scores | None:
    try:
        return read_scores(folder / "scores.json")
    except KdError:
        return None  # integrity says why


def teachers(voice: Voice) -> Iterator[Finding]:
    """Students better than their teacher: possible, but to be explained.

    Only by metrics that have a better side, and a value an example to tell chance by.
    """
    lines = [line for view in voice.scope.tables for line in view.lines]
    found = [
        (f"{cell_name(line, column)} ({line.cells[column].value:.1f})", line, column)
        for line in lines
        for column in _students(line)
    ]
    compared = len(found)
    better = [name for name, line, column in found if _is_above(voice, line, column)]
    if better:
        yield voice.say(
            "warn",
            "students above teachers",
            some(better),
            f"{counted(len(better), 'student')} of {compared} better than the teacher by more than "
            "chance among test rows: explain it",
            numbers={"cells": list(better)},
        )
    elif compared:
        yield voice.passed("students above teachers", f"none of {counted(compared, 'cell')}")


def _students(line: Line) -> list[str]:
    """Columns of a line's students, where they can be compared with the teacher."""
    metric = metric_named(line.metric)
    if metric.better == "neither" or not metric.per_example:
        return []
    return [
        column
        for column, cell in line.cells.items()
        if column != TEACHER and not column.startswith(GAIN)
        if cell.per_seed is not None and cell.value is not None
    ]


def _is_above(voice: Voice, line: Line, column: str) -> bool:
    """Better by more than 1.96 standard errors of the two means over the test rows."""
    own, teacher = (
        [_spread(voice, path, line.metric) for path in line.cells[name].scores]
        for name in (column, TEACHER)
    )
    known = [spread for spread in own if spread is not None]
    if not known or not teacher or teacher[0] is None:
        return False
    mean = sum(value for value, _ in known) / len(known)
    error = math.sqrt(known[0][1] ** 2 + teacher[0][1] ** 2)
    return metric_named(line.metric).sign * (mean - teacher[0][0]) > 1.96 * error


def _spread(voice: Voice, path: str, metric: str) -> tuple[float, float] | None:
    """Mean and standard error of a metric over the test rows."""
    scores = _read_scores((voice.scope.results / path).parent)
    found = scores.metrics.get(metric) if scores else None
    if scores is None or not isinstance(found, Aggregate):
        return None
    return found.mean, found.sd / math.sqrt(scores.n)
