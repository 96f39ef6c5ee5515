"""Verdicts on claims in words."""

from kd.experiment.claims import Claim
from kd.experiment.metrics import joined, metric_named
from kd.tables.claims import Verdict


def describe(claim: Claim, verdict: Verdict) -> str:
    """The verdict in a sentence: outcome, value and interval, what they cover, and power."""
    if verdict.value is None:
        return f"Undecided: {verdict.reason}."
    outcome = "Undecided at this power" if verdict.outcome == "undecided" else verdict.outcome
    metric = metric_named(verdict.metrics[0] if verdict.metrics else "")
    unit, digits = metric.unit, metric.decimals
    less = f" Of {joined(verdict.metrics)} less is better." if metric.better == "lower" else ""
    if verdict.low is None or verdict.high is None or verdict.decidable is None:
        value = f"{verdict.value:.0f} of {verdict.lines} lines"
        if claim.over != "lines":
            value = f"{verdict.value:+.{digits}f} {unit}"
        return f"{outcome.capitalize()}: {value}; {verdict.reason}.{less}"
    covers = f"over {verdict.over}" + (" only, not seeds" if verdict.over == "examples" else "")
    if claim.over == "lines":
        return (
            f"{outcome.capitalize()}: {verdict.value:.0f} of {verdict.lines} lines "
            f"[{verdict.low:.0f}, {verdict.high:.0f}] {covers}; margin {verdict.margin:+.0f}; "
            f"decided if every line lay beyond {verdict.decidable:.{digits}f} {unit}.{less}"
        )
    return (
        f"{outcome.capitalize()}: {verdict.value:+.{digits}f} {unit} "
        f"[{verdict.low:+.{digits}f}, {verdict.high:+.{digits}f}] {covers}; "
        f"margin {verdict.margin:+.{digits}f}; effects beyond {verdict.decidable:.{digits}f} "
        f"{unit} would have been decided.{less}"
    )
