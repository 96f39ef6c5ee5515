"""H. Agreement: our values beside the published ones, cell by cell."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Literal

from pydantic import JsonValue

from kd.audit.cell_scores import sample_of
from kd.audit.findings import Finding, Status
from kd.audit.notes import AGREEMENT, Voice, cell_name, counted, some
from kd.audit.outside import find_outside
from kd.audit.scope import Scope, TableView
from kd.errors import KdError
from kd.tables.cells import Line, score_columns
from kd.tables.claims import evaluate_claims
from kd.tables.published import Key, Published, published_key, read_published
from kd.tables.statistics import prediction_of_runs

Verdict = Literal[
    "reproduced",
    "within tolerance",
    "differs (direction kept)",
    "differs (direction lost)",
    "not run",
    "no reference",
]


@dataclass(frozen=True)
class Compared:
    """One cell: the published value, ours, and what to make of it."""

    cell: str
    published: float | None
    ours: float | None
    verdict: Verdict

    @property
    def difference(self) -> float | None:
        """Ours minus the published value, in points."""
        if self.published is None or self.ours is None:
            return None
        return self.ours - self.published


def check(scope: Scope) -> list[Finding]:
    """Published values beside ours, and the claims that the experiment makes of its tables."""
    voice = Voice(AGREEMENT, scope)
    found = [rule(voice, view) for view in scope.tables for rule in (_table, _claims)]
    return [one for one in found if one] or [
        voice.not_applicable("published values", "no table in scope")
    ]


def _claims(voice: Voice, view: TableView) -> Finding | None:
    """The experiment's claims about a table, put to the test."""
    experiment = voice.scope.experiment
    if experiment is None or view.spec is None or not experiment.claims:
        return None
    try:
        verdicts = evaluate_claims(experiment.claims, view.spec, sample_of(voice.scope, view))
    except KdError as error:
        return voice.not_applicable("claims", f"claims cannot be tested: {error}")
    if not verdicts:
        return None
    told = {
        outcome: [name for name, verdict in verdicts.items() if verdict.outcome == outcome]
        for outcome in ("holds", "does not hold", "undecided")
    }
    evidence = f"of {counted(len(verdicts), 'claim')}, {len(told['holds'])} hold"
    for outcome in ("does not hold", "undecided"):
        if told[outcome]:
            evidence += f"; {outcome}: {some(told[outcome])}"
    numbers: dict[str, JsonValue] = {
        name: {"outcome": one.outcome, "value": one.value, "low": one.low, "high": one.high}
        for name, one in verdicts.items()
    }
    return voice.say(
        "warn" if told["does not hold"] else "pass",
        "claims",
        view.artifact.key,
        evidence,
        artifacts=[view.artifact],
        numbers=numbers,
    )


def _table(voice: Voice, view: TableView) -> Finding:
    recorded = view.artifact.context.get("paths", {}).get("published")
    if view.spec is None or not recorded:
        return voice.not_applicable(
            "published values", f"{view.artifact.name} has no published values to compare with"
        )
    path = find_outside(voice.scope, str(recorded))
    if path is None:
        return voice.not_applicable(
            "published values", f"the published values of {view.artifact.name} are not here"
        )
    try:
        theirs = read_published(path)
    except KdError as error:
        return voice.not_applicable("published values", str(error))
    cells = list(compare(view, theirs, voice.scope.settings.tolerance))
    return _finding(voice, view, cells)


def compare(view: TableView, theirs: dict[Key, Published], tolerance: float) -> Iterator[Compared]:
    """Every cell of scores beside its published value."""
    assert view.spec is not None
    for line in view.lines:
        for column in score_columns(view.spec):
            name = cell_name(line, column)
            published = _reference(theirs, line, column)
            verdict = _verdict(view, line, column, theirs, tolerance)
            stated = None if published is None else published.value
            yield Compared(name, stated, line.cells[column].value, verdict)


def _reference(theirs: dict[Key, Published], line: Line, column: str) -> Published | None:
    """The published value of a cell; none is of students tested on another dataset."""
    if line.place.tested != line.place.dataset:
        return None
    return theirs.get(published_key(line, column))


def _verdict(
    view: TableView, line: Line, column: str, theirs: dict[Key, Published], tolerance: float
) -> Verdict:
    assert view.spec is not None
    cell, found = line.cells[column], _reference(theirs, line, column)
    if found is None:
        return "no reference"
    published = found.value
    if cell.value is None:
        return "not run"
    interval = prediction_of_runs(list((cell.per_seed or {}).values()))
    if interval is not None and interval[0] <= published <= interval[1]:
        return "reproduced"
    if abs(cell.value - published) <= tolerance:
        return "within tolerance"
    baseline = line.cells[view.spec.baseline].value
    theirs_baseline = _reference(theirs, line, view.spec.baseline)
    if column == view.spec.baseline or baseline is None or theirs_baseline is None:
        return "differs (direction kept)"
    same = (cell.value > baseline) == (published > theirs_baseline.value)
    return "differs (direction kept)" if same else "differs (direction lost)"


def _finding(voice: Voice, view: TableView, cells: list[Compared]) -> Finding:
    counts: dict[str, int] = {}
    for cell in cells:
        counts[cell.verdict] = counts.get(cell.verdict, 0) + 1
    lost = [cell.cell for cell in cells if cell.verdict == "differs (direction lost)"]
    kept = [cell.cell for cell in cells if cell.verdict == "differs (direction kept)"]
    with_reference = [cell for cell in cells if cell.published is not None]
    if not with_reference:
        return voice.not_applicable(
            "published values", f"none of the {len(cells)} cells has a published value"
        )
    status: Status = "fail" if lost else "warn" if kept else "pass"
    told = ", ".join(f"{count} {verdict}" for verdict, count in counts.items())
    where = f": {some(lost or kept)}" if lost or kept else ""
    table: JsonValue = [asdict(cell) | {"difference": cell.difference} for cell in cells]
    return voice.say(
        status,
        "published values",
        view.artifact.key,
        f"of {counted(len(cells), 'cell')}: {told} (tolerance "
        f"{voice.scope.settings.tolerance} points){where}",
        artifacts=[view.artifact],
        numbers={"cells": table},
    )
