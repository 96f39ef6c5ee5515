"""A report on the terminal: a summary of at most 15 lines, or every finding."""

from collections.abc import Mapping

from rich.console import Console
from rich.table import Table
from rich.text import Text

from kd.audit.findings import WORST_FIRST, Finding, Report, Status

MAX_LINES = 15
_PLAIN_WIDTH = 140  # of a log file or a pipe, which has no width of its own
_SUBJECT = 44  # characters of a subject that a summary keeps, from its end
_STYLE: dict[Status, tuple[str, str]] = {
    "fail": ("✗", "red"),
    "warn": ("!", "yellow"),
    "not applicable": ("-", "dim"),
    "pass": ("✓", "green"),
}


def print_summary(report: Report, more: str) -> None:
    """Two lines on the whole, one per check with its worst finding; at most `MAX_LINES` lines.

    Args:
        report: what to print.
        more: the last line: how to see every finding.
    """
    console = _console()
    _line(console, Text(f"{report.audit} {report.subject}: {_verdict(report)}"))
    _line(console, Text(report.summary))
    checks = list(dict.fromkeys(finding.check for finding in report.findings))
    room = MAX_LINES - 3
    shown = checks if len(checks) <= room else checks[: room - 1]
    for check in shown:
        _line(console, _check_line([f for f in report.findings if f.check == check]))
    if len(shown) < len(checks):
        _line(console, Text(f"  and {len(checks) - len(shown)} checks with nothing worse"))
    _line(console, Text(more, style="dim"))


def print_findings(report: Report, *, tables: bool) -> None:
    """Every finding with its evidence and next command; with `tables`, its metrics, too."""
    console = _console()
    console.print(Text(f"{report.audit} {report.subject}: {_verdict(report)}\n{report.summary}"))
    for finding in report.findings:
        glyph, style = _STYLE[finding.status]
        console.print(
            Text.assemble((f"{glyph} {finding.check}  ", style), (finding.subject, "bold")),
            soft_wrap=True,
        )
        console.print(Text(f"    {finding.evidence}"), soft_wrap=True)
        if finding.next_command:
            console.print(Text(f"    $ {finding.next_command}", style="dim"), soft_wrap=True)
        metrics = finding.details.get("metrics")
        if tables and isinstance(metrics, dict):
            console.print(_metrics_table(metrics))


def _verdict(report: Report) -> str:
    counts = [f"{count} {status}" for status in WORST_FIRST if (count := report.count(status)) > 0]
    return ", ".join(counts) or "no findings"


def _check_line(findings: list[Finding]) -> Text:
    worst = findings[0]
    glyph, style = _STYLE[worst.status]
    counts = ", ".join(
        f"{count} {'n/a' if status == 'not applicable' else status}"
        for status in WORST_FIRST
        if (count := sum(finding.status == status for finding in findings))
    )
    tail = ""
    if worst.status in ("fail", "warn"):
        subject = worst.subject
        short = subject if len(subject) <= _SUBJECT else f"…{subject[1 - _SUBJECT :]}"
        tail = f"{short}: {worst.evidence}"
    return Text.assemble((f"{glyph} {worst.check:<18}", style), f"{counts:<26} ", tail)


def _metrics_table(metrics: Mapping[str, object]) -> Table:
    """`details.metrics`: a dictionary of columns for each metric."""
    rows = {name: row for name, row in metrics.items() if isinstance(row, dict)}
    columns = list(dict.fromkeys(column for row in rows.values() for column in row))
    table = Table("metric", *columns, pad_edge=True)
    for name, row in rows.items():
        table.add_row(name, *(_cell(row.get(column)) for column in columns))
    return table


def _cell(value: object) -> str:
    if value is None:
        return "n/a"
    return f"{value:.4f}" if isinstance(value, float) else str(value)


def _line(console: Console, text: Text) -> None:
    if console.is_terminal:
        console.print(text, no_wrap=True, overflow="ellipsis", crop=True)
    else:  # a file or a pipe has room for all of it
        console.print(text, soft_wrap=True)


def _console() -> Console:
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = _PLAIN_WIDTH
    return console
