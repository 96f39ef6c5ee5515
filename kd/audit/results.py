"""The audit of results: all checks on one target, and the report that they make."""

from collections.abc import Callable
from typing import Any

from pydantic import Field, JsonValue

from kd.audit.chain import Artifact
from kd.audit.checks import (
    agreement,
    completeness,
    consistency,
    currency,
    integrity,
    pinning,
    projection,
    repeatability,
    statistics,
    validity,
)
from kd.audit.consequences import mark_consequences
from kd.audit.findings import Finding, Report, in_reading_order
from kd.audit.notes import AGREEMENT, CHECKS, PROJECTION, Voice, counted, plain
from kd.audit.scope import Scope, Settings, open_scope
from kd.audit.target import Target

Check = Callable[[Scope], list[Finding]]

_CHECKS: dict[str, Check] = dict(
    zip(
        CHECKS,
        (
            integrity.check,
            currency.check,
            completeness.check,
            pinning.check,
            consistency.check,
            validity.check,
            statistics.check,
            agreement.check,
            repeatability.check,
            projection.check,
        ),
        strict=True,
    )
)


class ResultsReport(Report):
    """The report on a table, a run or an experiment: findings, cells and the chain behind them."""

    experiment: str = Field(description="name of the results folder")
    identity: str = Field(description="the one hash that pins all that was audited")
    cells: tuple[dict[str, JsonValue], ...] = Field(
        description="each cell: table, axes, column, value, whether it holds, and its scores"
    )
    artifacts: dict[str, dict[str, JsonValue]] = Field(
        description="each artifact by key: stage, identity, code, inputs and outputs"
    )


def audit_results(target: Target, settings: Settings) -> tuple[ResultsReport, Scope]:
    """Run every check on `target`. Nothing below the results folder is written.

    Raises:
        ArtifactError: there is nothing to audit.
        ExperimentError: an experiment was named that cannot be read.
    """
    scope = open_scope(target, settings)
    found = [finding for name, check in _CHECKS.items() for finding in _run(name, check, scope)]
    findings = in_reading_order(mark_consequences(found, scope), CHECKS)
    cells = _cells(scope, findings)
    identity = integrity.identity_of(scope)
    report = ResultsReport(
        audit=f"audit {target.kind}",
        subject=target.title(),
        summary=_summary(scope, cells, identity),
        findings=findings,
        experiment=scope.results.name,
        identity=identity,
        cells=tuple(cells),
        artifacts={one.key: _artifact(scope, one) for one in scope.artifacts},
    )
    return report, scope


def _run(name: str, check: Check, scope: Scope) -> list[Finding]:
    """The findings of one check. Content that it cannot even read is a finding, not a crash."""
    try:
        return check(scope)
    except (TypeError, ValueError, LookupError, AttributeError, ArithmeticError) as error:
        voice = Voice(name, scope)
        what = f"something that it reads is malformed ({type(error).__name__}: {error})"
        return [voice.say("fail", "readable", scope.target.name, what, artifacts=scope.sinks)]


def _summary(scope: Scope, cells: list[dict[str, JsonValue]], identity: str) -> str:
    hold = sum(bool(cell["holds"]) for cell in cells)
    verb = "holds" if len(cells) == 1 else "hold"
    about = f"{hold} of {counted(len(cells), 'cell')} {verb}; " if cells else ""
    chain = counted(len(scope.artifacts), "artifact")
    return f"{about}{chain} back to the rows; identity {identity}"


def _cells(scope: Scope, findings: tuple[Finding, ...]) -> list[dict[str, JsonValue]]:
    """Every cell of the tables in scope; one holds if no failure is about what it rests on.

    No cell rests on published values, on MLflow or on a README: these are set beside it.
    """
    beside = (AGREEMENT, PROJECTION)
    failures = [one for one in findings if one.status == "fail" and one.check not in beside]
    bad = {key for finding in failures for key in _about(finding)}
    history = {one.key: {one.key, *scope.ancestors(one)} for one in scope.artifacts}
    in_scope = set(history)
    cells: list[dict[str, JsonValue]] = []
    for view in scope.tables:
        for line in view.lines:
            for column, cell in line.cells.items():
                # Scores, or of a training curve the distillation that left it.
                scores = [scope.chain.maker(path).key for path in cell.scores]
                if not set(scores) <= in_scope:
                    continue
                rests_on = {view.artifact.key}.union(*(history[key] for key in scores))
                axes: dict[str, Any] = line.axes
                cells.append(
                    {
                        "table": view.artifact.name,
                        "axes": axes,
                        "column": column,
                        "value": plain(cell.value),
                        "holds": not rests_on & bad,
                        "scores": list(scores),
                    }
                )
    return cells


def _about(finding: Finding) -> list[str]:
    found = finding.details.get("artifacts", [])
    return [str(key) for key in found] if isinstance(found, list) else []


def _artifact(scope: Scope, artifact: Artifact) -> dict[str, JsonValue]:
    sources = scope.chain.sources(artifact)
    inputs: dict[str, JsonValue] = {
        source.role: {"artifact": source.writer, "sha256": source.sha256} for source in sources
    }
    outputs: dict[str, JsonValue] = dict(artifact.outputs)
    told: dict[str, JsonValue] = {
        "stage": artifact.stage,
        "identity": artifact.identity,
        "code": artifact.hashed.get("code"),
        "inputs": inputs,
        "outputs": outputs,
        "seconds": artifact.seconds,
        "commit": artifact.context.get("commit"),
    }
    return {key: plain(value) for key, value in told.items()}
