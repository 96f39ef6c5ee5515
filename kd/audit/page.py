"""The audit as one HTML page: no script, no network; every cell opens its chain to the rows."""

from html import escape
from typing import Any

from kd.audit.chain import Artifact
from kd.audit.findings import Finding
from kd.audit.notes import AGREEMENT, CHECKS, cell_name
from kd.audit.page_artifacts import STYLE, anchor, artifact_sections, cell_details
from kd.audit.results import ResultsReport
from kd.audit.scope import Scope, TableView
from kd.tables.cells import Line
from kd.tables.statistics import spread

_GLYPH = {"fail": "✗", "warn": "!", "not applicable": "–", "pass": "✓"}


def render_page(report: ResultsReport, scope: Scope) -> str:
    """The whole page. It names no path of the machine that it was made on."""
    parts = [
        "<!doctype html>",
        '<html lang="en"><head><meta charset="utf-8">',
        f"<title>{escape(report.audit)}: {escape(report.subject)}</title>",
        f"<style>{STYLE}</style></head><body>",
        _head(report, scope),
        *(_table(view, report, scope) for view in scope.tables if view.lines),
        _findings(report),
        _work(scope),
        "<h2>Artifacts</h2><p>What was read stands before what was made of it.</p>",
        *artifact_sections(scope),
        _verify(report),
        "</body></html>",
    ]
    return "\n".join(parts) + "\n"


def _head(report: ResultsReport, scope: Scope) -> str:
    counts = ", ".join(
        f"<span class='{status.replace(' ', '-')}'>{report.count(status)} {status}</span>"
        for status in ("fail", "warn", "not applicable", "pass")
    )
    commits = sorted({str(one.context.get("commit") or "unknown") for one in scope.artifacts})
    started = sorted(str(one.context.get("started", "")) for one in scope.artifacts)
    made = f"{started[0][:10]} to {started[-1][:10]}"
    return (
        f"<h1>{escape(report.audit)}: {escape(report.subject)}</h1>"
        f"<p class='verdict'>{counts}</p><p>{escape(report.summary)}</p>"
        f"<p>Made {escape(made)}, from commit {escape(', '.join(commits))}.</p>"
    )


def _table(view: TableView, report: ResultsReport, scope: Scope) -> str:
    """The table itself; a cell that fails is marked, and each opens what it rests on."""
    holds = {
        (cell["table"], str(cell["axes"]), cell["column"]): bool(cell["holds"])
        for cell in report.cells
    }
    theirs = _published(report, view.artifact.key)
    title = view.spec.title if view.spec and view.spec.title else view.artifact.name
    columns = list(view.lines[0].cells)
    axes = [
        axis
        for axis in ("dataset", "teacher", "student", "fraction", "method")
        if _shown(view, axis)
    ]
    head = "".join(f"<th>{escape(name)}</th>" for name in [*axes, "metric", *columns])
    rows = []
    for line in view.lines:
        place = "".join(f"<td>{escape(str(line.axes.get(axis, '')))}</td>" for axis in axes)
        cells = "".join(
            _cell(
                line,
                column,
                holds.get((view.artifact.name, str(line.axes), column)),
                theirs.get(cell_name(line, column)),
                scope,
            )
            for column in columns
        )
        rows.append(f"<tr>{place}<td>{escape(line.metric)}</td>{cells}</tr>")
    return (
        f"<h2>{escape(title)}</h2><p><a href='#{anchor(view.artifact.key)}'>"
        f"{escape(view.artifact.name)}</a>. Open a cell for the chain behind it.</p>"
        f"<table class='results'><thead><tr>{head}</tr></thead>"
        f"<tbody>{''.join(rows)}</tbody></table>"
    )


def _shown(view: TableView, axis: str) -> bool:
    return any(axis in line.axes for line in view.lines)


def _cell(
    line: Line, column: str, holds: bool | None, theirs: dict[str, Any] | None, scope: Scope
) -> str:
    """Our value with its spread, and the published one with the verdict on it."""
    if holds is None:
        return "<td></td>"
    cell = line.cells[column]
    text = "n/a" if cell.value is None else f"{cell.value:.2f}"
    if cell.per_seed and len(cell.per_seed) > 1:
        found = spread(list(cell.per_seed.values()))
        text += f" ± {found.sd:.2f} ({found.n})"
    mark = "✓" if holds else "✗"
    shown = f"<span class='{'pass' if holds else 'fail'}'>{mark}</span> {text}"
    beside = ""
    if theirs is not None and theirs["published"] is not None:
        told = f"published {theirs['published']:.2f}: {theirs['verdict']}"
        beside = f"<small>{escape(told)}</small>"
    return f"<td>{cell_details(scope, shown, cell.scores)}{beside}</td>"


def _published(report: ResultsReport, table: str) -> dict[str, dict[str, Any]]:
    """The comparison with published values by cell, from the check that made it."""
    cells = [
        cell
        for finding in report.findings
        if finding.check == AGREEMENT and finding.subject == table
        for cell in _cells_of(finding)
    ]
    return {str(cell["cell"]): cell for cell in cells}


def _cells_of(finding: Finding) -> list[dict[str, Any]]:
    found = finding.details.get("cells", [])
    return [cell for cell in found if isinstance(cell, dict)] if isinstance(found, list) else []


def _findings(report: ResultsReport) -> str:
    """Findings by letter; within one, the worst first and consequences last."""
    parts = ["<h2>Findings</h2>"]
    for check in CHECKS:
        found = [finding for finding in report.findings if finding.check == check]
        if found:
            items = "".join(_finding(finding) for finding in found)
            parts.append(f"<h3>{escape(check)}</h3><ul class='findings'>{items}</ul>")
    return "".join(parts)


def _finding(finding: Finding) -> str:
    derived = (
        f" <em>follows from {escape(finding.derived_from)}</em>" if finding.derived_from else ""
    )
    command = f"<br><code>$ {escape(finding.next_command)}</code>" if finding.next_command else ""
    kind = finding.status.replace(" ", "-")
    return (
        f"<li class='{kind}'><span class='{kind}'>{_GLYPH[finding.status]}</span> "
        f"<b>{escape(finding.rule)}</b> {escape(finding.subject)}: {escape(finding.evidence)}."
        f"{derived}{command}</li>"
    )


def _work(scope: Scope) -> str:
    """What it took, by stage, and what made it."""
    stages = dict.fromkeys(artifact.stage for artifact in scope.artifacts)
    rows = "".join(_stage(stage, scope.of_stage(stage)) for stage in stages)
    return (
        "<h2>Work and environment</h2><table><thead><tr><th>stage</th><th>artifacts</th>"
        "<th>hours</th><th>most memory, MiB</th><th>device</th><th>threads</th><th>torch</th>"
        f"<th>python</th></tr></thead><tbody>{rows}</tbody></table>"
    )


def _stage(stage: str, artifacts: list[Artifact]) -> str:
    hours = sum(artifact.seconds for artifact in artifacts) / 3600
    memory = max((int(one.context.get("peak_memory_mib") or 0) for one in artifacts), default=0)
    cells: list[Any] = [stage, len(artifacts), f"{hours:.3f}", memory]
    for name in ("device", "threads"):
        cells.append(_values(artifact.numerics.get(name) for artifact in artifacts))
    packages = [artifact.numerics.get("packages") or {} for artifact in artifacts]
    cells.append(_values(found.get("torch") for found in packages))
    cells.append(_values(artifact.numerics.get("python") for artifact in artifacts))
    return "<tr>" + "".join(f"<td>{escape(str(cell))}</td>" for cell in cells) + "</tr>"


def _values(found: Any) -> str:
    return ", ".join(sorted({str(value) for value in found}))


def _verify(report: ResultsReport) -> str:
    return (
        "<h2>Without trusting this page</h2><p>An artifact's identity is the SHA-256 of its "
        "manifest's hashed part, which holds the identities of its inputs. "
        f"<code>sha256sum</code> shows the files; <code>kd {escape(report.audit)} … --expect "
        f"{escape(report.identity)}</code> compares with an identity kept elsewhere, and "
        "<code>--repeat 1</code> makes the cheapest cell again.</p>"
    )
