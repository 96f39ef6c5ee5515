"""Commands that audit: read-only, offline, and without torch."""

from pathlib import Path
from typing import Annotated

import typer

from kd.commands import audit_results

app = typer.Typer(no_args_is_help=True, cls=audit_results.GuessingGroup)
app.add_typer(audit_results.app)


@app.callback()
def _audit() -> None:
    """Check whether numbers hold. Exit status: 0 nothing failed, 1 a check failed, 2 usage."""


@app.command(
    epilog="Examples:  kd audit published llm-distillation  |  "
    "kd audit published llm-distillation --json  |  "
    "kd audit published . --only benchmark/results/mt0-base"
)
def published(
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="An archive's results, in its own layout.")
    ],
    protocol: Annotated[
        str, typer.Option(help="How its files are laid out and scored: a protocol's name.")
    ] = "uld",
    json: Annotated[bool, typer.Option("--json", help="Print the report as JSON alone.")] = False,
    all_: Annotated[bool, typer.Option("--all", help="Print every finding.")] = False,
    only: Annotated[
        str | None,
        typer.Option(help="Print every finding about this file, folder or comparison."),
    ] = None,
    bertscore: Annotated[
        Path | None, typer.Option(help="Folder of the encoder: recompute BERTScore F1, slowly.")
    ] = None,
    strict: Annotated[bool, typer.Option(help="Let warnings fail, too.")] = False,
) -> None:
    """Recompute an archive's published scores from its raw predictions."""
    from kd.audit.published.report import audit_published
    from kd.audit.summary import print_findings, print_summary

    report = audit_published(folder, protocol, bertscore)
    if only is not None:
        report = report.only(only)
    if json:
        print(report.to_json())
    elif all_ or only is not None:
        print_findings(report, tables=only is not None)
    else:
        print_summary(report, "Every finding with its next command: --all, or --json.")
    raise typer.Exit(report.exit_code(strict=strict))
