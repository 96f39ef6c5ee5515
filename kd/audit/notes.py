"""How the checks of results speak: their names, and the making of findings."""

import math
from collections.abc import Iterable, Sequence
from typing import Any

from pydantic import JsonValue

from kd.audit.chain import Artifact
from kd.audit.findings import Finding, Status
from kd.audit.places import CHART
from kd.audit.scope import Scope
from kd.tables.cells import Line

INTEGRITY = "A integrity"
CURRENCY = "B currency"
COMPLETENESS = "C completeness"
PINNING = "D pinning"
CONSISTENCY = "E consistency"
VALIDITY = "F validity"
STATISTICS = "G statistics"
AGREEMENT = "H agreement"
REPEATABILITY = "I repeatability"
PROJECTION = "J projection"
CHECKS = (
    INTEGRITY,
    CURRENCY,
    COMPLETENESS,
    PINNING,
    CONSISTENCY,
    VALIDITY,
    STATISTICS,
    AGREEMENT,
    REPEATABILITY,
    PROJECTION,
)

SHOWN = 3  # examples in a sentence; the details list all


class Voice:
    """Makes the findings of one check about one scope."""

    def __init__(self, check: str, scope: Scope) -> None:
        self.check = check
        self.scope = scope

    def say(
        self,
        status: Status,
        rule: str,
        subject: str,
        evidence: str,
        *,
        artifacts: Iterable[Artifact] = (),
        then: str = "",
        numbers: dict[str, JsonValue] | None = None,
    ) -> Finding:
        """One finding. `artifacts` are those it is about; `then` is the next command."""
        keys: list[JsonValue] = [artifact.key for artifact in artifacts]
        about: dict[str, JsonValue] = {"artifacts": keys} if keys else {}
        return Finding(
            check=self.check,
            rule=rule,
            subject=subject,
            status=status,
            evidence=evidence,
            next_command=then,
            details=about | {key: plain(value) for key, value in (numbers or {}).items()},
        )

    def about(
        self,
        status: Status,
        rule: str,
        artifact: Artifact,
        evidence: str,
        then: str | None = None,
        **numbers: JsonValue,
    ) -> Finding:
        """A finding about one artifact; by default the next command makes that one anew."""
        command = self.remake(artifact) if then is None and status != "pass" else then or ""
        return self.say(
            status,
            rule,
            artifact.key,
            evidence,
            artifacts=[artifact],
            then=command,
            numbers=numbers,
        )

    def passed(self, rule: str, evidence: str) -> Finding:
        """Nothing is wrong, and this was looked at."""
        return self.say("pass", rule, self.scope.results.name, evidence)

    def not_applicable(self, rule: str, evidence: str, then: str = "") -> Finding:
        """The rule cannot be applied, and why."""
        return self.say("not applicable", rule, self.scope.results.name, evidence, then=then)

    def remake(self, artifact: Artifact) -> str:
        """The command that makes one artifact anew, whatever Snakemake thinks of it."""
        return f"snakemake --force {self.target_of(artifact)}"

    def target_of(self, artifact: Artifact) -> str:
        """What Snakemake calls an artifact: its first output, or the folder that holds it."""
        folder = f"results/{self.scope.results.name}/{artifact.folder}"
        if artifact.stage == "data":
            return folder
        if artifact.stage == "chart":
            return f"{folder}/{artifact.name.removesuffix(CHART)}.svg"
        if artifact.folder == "tables":
            return f"{folder}/{artifact.name}.csv"
        known = {
            "answer": "answers.parquet",
            "extract": "logits",
            "distill": "model",
            "pretrain": "model",
            "fetch": "model",
            "predict": "predictions.parquet",
            "score": "scores.json",
        }
        return f"{folder}/{known.get(artifact.stage, artifact.name)}"

    def make_all(self) -> str:
        """The command that brings everything in scope up to date."""
        scope = self.scope
        tables = [
            f"results/{scope.results.name}/tables/{v.artifact.name}.csv" for v in scope.tables
        ]
        if not tables:
            tables = [self.target_of(scope.artifacts[-1])]
        return f"snakemake {' '.join(tables)}"


def cell_name(line: Line, column: str) -> str:
    """What findings call a cell of a table."""
    axes = line.axes
    place = f"{axes['dataset']}/{axes['teacher']}/{axes['student']}"
    share = "" if axes["fraction"] == 100 else f"/{axes['fraction']} %"
    further = "".join(f"/{axes[axis]}" for axis in ("test", "metric", "method") if axes.get(axis))
    return f"{column} of {place}{share}{further}"


def plain(value: JsonValue) -> JsonValue:
    """`value` with null for numbers that JSON does not know: NaN and infinity."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    return [plain(item) for item in value] if isinstance(value, list) else value


def some(names: Sequence[str]) -> str:
    """The first few of `names`, and how many more."""
    shown = ", ".join(names[:SHOWN])
    return f"{shown} and {len(names) - SHOWN} more" if len(names) > SHOWN else shown


def counted(count: int, singular: str, plural: str = "") -> str:
    """`1 artifact`, `3 artifacts`."""
    return f"{count} {singular if count == 1 else plural or singular + 's'}"


def short(value: Any) -> str:
    """A value as a sentence shows it: digests cut, missing ones named."""
    if value is None:
        return "none"
    text = str(value)
    is_digest = len(text) == 64 and all(char in "0123456789abcdef" for char in text)
    return text[:12] if is_digest else text if len(text) <= 60 else f"{text[:57]}…"
