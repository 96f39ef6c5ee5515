"""Checks of one score file, with the predictions beside it where there are any."""

from collections.abc import Sequence
from math import sqrt
from statistics import stdev

from pydantic import JsonValue

from kd.audit.findings import Finding, Status, finding, shell_command
from kd.audit.published.entries import Entry, Predictions
from kd.audit.published.protocol import Protocol

# Half a unit of the second decimal, and what adding floats in another order may change.
DECIMALS = 0.005 + 1e-9
# The median of 1,000 bootstrap means is off by 0.04 standard errors (one standard deviation).
BOOTSTRAP_ERRORS = 0.16
# Percentage points by which empty candidates may move a metric without a warning.
EMPTY_DRAG = 0.5
_OTHER_SCALES = {100: "fractions", 0.01: "percent"}


def check_file(entry: Entry, protocol: Protocol) -> list[Finding]:
    """All findings about one score file alone."""
    words = ("kd", "audit", "published", ".", "--protocol", protocol.name, "--only")
    look = shell_command(*words, paths=[entry.run.path])
    findings = [_readable(entry), _rows(entry), _identity(entry), _arithmetic(entry, protocol)]
    if entry.predictions is None:
        fetch = shell_command("git", "log", "--all", "--", paths=[entry.run.predictions])
        told = f"Cannot be audited: {entry.unread}."
        return [
            *findings,
            finding("scores", entry.subject, "not applicable", told, fetch),
            finding("scoring protocol", entry.subject, "not applicable", told),
            finding("empty candidates", entry.subject, "not applicable", told),
        ]
    return [
        *findings,
        _scores(entry, entry.predictions, protocol, look),
        _scoring_protocol(entry, entry.predictions, protocol, look),
        _empty_candidates(entry, entry.predictions, protocol),
    ]


def _readable(entry: Entry) -> Finding:
    problems = entry.published.problems
    show = shell_command("python", "-m", "json.tool", paths=[entry.run.path])
    if problems:
        return finding(
            "readable", entry.subject, "fail", f"In this file {'; '.join(problems)}.", show
        )
    return finding(
        "readable", entry.subject, "pass", f"{len(entry.values)} metrics, in {entry.scale}."
    )


def _rows(entry: Entry) -> Finding:
    stated = entry.published.rows
    if stated is None:
        return finding(
            "rows", entry.subject, "warn", "The file does not say how many rows were tested."
        )
    if entry.predictions is None:
        return finding(
            "rows", entry.subject, "not applicable", f"States {stated} rows; {entry.unread}."
        )
    count = shell_command("wc", "-l", paths=[entry.run.predictions])
    told = f"States {stated} rows; there are {entry.predictions.rows} predictions."
    return finding(
        "rows", entry.subject, "pass" if stated == entry.predictions.rows else "fail", told, count
    )


def _identity(entry: Entry) -> Finding:
    run = entry.run
    place = {"dataset": run.dataset, "model": run.model, "teacher": run.teacher, **run.settings}
    declared = {name: value for name, value in entry.published.declared.items() if name in place}
    wrong = [
        f"{name} is '{value[:40]}' in the file, '{place[name]}' in its path"
        for name, value in declared.items()
        if value != place[name]
    ]
    show = shell_command("cat", paths=[run.path])
    if not declared:
        return finding(
            "identity", entry.subject, "not applicable", "The file does not say what it is of."
        )
    if wrong:
        return finding("identity", entry.subject, "fail", f"{'; '.join(wrong)}.", show)
    told = f"Its own {', '.join(declared)} are those of its path."
    return finding("identity", entry.subject, "pass", told)


def _arithmetic(entry: Entry, protocol: Protocol) -> Finding:
    wrong = protocol.inconsistencies(entry.values)
    show = shell_command("cat", paths=[entry.run.path])
    if wrong:
        return finding("arithmetic", entry.subject, "fail", f"{'; '.join(wrong)}.", show)
    return finding("arithmetic", entry.subject, "pass", "The metrics do not contradict each other.")


def _scores(entry: Entry, predictions: Predictions, protocol: Protocol, look: str) -> Finding:
    metrics = {
        name: _compared(name, entry, predictions, protocol)
        for name in protocol.rules
        if name in entry.values
    }
    checked = [name for name, row in metrics.items() if row["agrees"] is not None]
    off = [name for name in checked if not metrics[name]["agrees"]]
    told = [
        f"{'Differs' if off else 'Agrees'}: {len(checked) - len(off)} of {len(checked)} "
        f"recomputed metrics agree over {predictions.rows} rows"
    ]
    told += [_disagreement(name, entry, predictions) for name in off]
    if rest := [name for name in metrics if name not in checked]:
        told.append(f"not recomputed, for want of their encoder: {', '.join(rest)}")
    status: Status = "fail" if off or not checked else "pass"
    shown: dict[str, JsonValue] = dict(metrics.items())
    details: dict[str, JsonValue] = {"rows": predictions.rows, "metrics": shown}
    return finding("scores", entry.subject, status, f"{'; '.join(told)}.", look, details)


def _compared(
    name: str, entry: Entry, predictions: Predictions, protocol: Protocol
) -> dict[str, JsonValue]:
    """One metric: published, recomputed by the authors' scoring and by ours, and agreement."""
    scored, published, rule = predictions.scored, entry.values[name], protocol.rules[name]
    row: dict[str, JsonValue] = {"rule": rule, "published": published}
    if name not in scored.authors:
        return row | {"recomputed": None, "correct": None, "tolerance": None, "agrees": None}
    tolerance = DECIMALS
    if rule == "bootstrap":
        error = standard_error(scored.per_row[name])
        tolerance += BOOTSTRAP_ERRORS * error
        row["standard_error"] = error
    return row | {
        "recomputed": scored.authors[name],
        "correct": scored.correct.get(name),
        "tolerance": tolerance,
        "agrees": abs(published - scored.authors[name]) <= tolerance,
    }


def standard_error(values: Sequence[float]) -> float:
    """Of the mean of `values`; 0 for a single one."""
    return stdev(values) / sqrt(len(values)) if len(values) > 1 else 0.0


def _disagreement(name: str, entry: Entry, predictions: Predictions) -> str:
    published, ours = entry.values[name], predictions.scored.authors[name]
    for factor, scale in _OTHER_SCALES.items():
        if ours > 1 and abs(published * factor - ours) <= 0.51:
            return f"{name} seems to be in {scale}, unlike the rest of the file"
    return f"{name} is {published:.2f}, but its predictions give {ours:.2f}"


def _scoring_protocol(
    entry: Entry, predictions: Predictions, protocol: Protocol, look: str
) -> Finding:
    scored = predictions.scored
    changed = [
        f"{name} {scored.authors[name]:.2f} becomes {scored.correct[name]:.2f}"
        for name in protocol.rules
        if name in scored.correct and abs(scored.authors[name] - scored.correct[name]) > DECIMALS
    ]
    touched = [f"{quirk} ({count} rows)" for quirk, count in scored.quirks.items() if count]
    details: dict[str, JsonValue] = {"quirks": dict(scored.quirks)}
    told = "The authors' scoring and sound scoring agree at two decimals."
    if changed:
        told = f"By sound scoring {', '.join(changed)}; why: {', '.join(touched)}."
    status: Status = "warn" if changed else "pass"
    return finding("scoring protocol", entry.subject, status, told, look, details)


def _empty_candidates(entry: Entry, predictions: Predictions, protocol: Protocol) -> Finding:
    rows, empty = predictions.rows, predictions.empty
    told = f"{empty} of {rows} predictions are empty"
    if empty == rows:
        return finding("empty candidates", entry.subject, "warn", f"{told}.")
    without = {
        name: (rows * entry.values[name] - empty * value) / (rows - empty)
        for name, value in protocol.empty_candidate.items()
        if name in entry.values
    }
    dragged = [n for n, value in without.items() if abs(value - entry.values[n]) >= EMPTY_DRAG]
    if dragged:
        effect = [f"{n} {entry.values[n]:.2f} (without them {without[n]:.2f})" for n in dragged]
        told = f"{told}, which drags down {', '.join(effect)}"
    status: Status = "warn" if dragged else "pass"
    find = shell_command("grep", "-c", '": ""', paths=[entry.run.predictions])
    details: dict[str, JsonValue] = {"empty": empty, "rows": rows, "without_empty": dict(without)}
    return finding("empty candidates", entry.subject, status, f"{told}.", find, details)
