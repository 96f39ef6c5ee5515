"""Auditing results: `kd audit table|run|experiment`, or a path of which they are guessed."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

if TYPE_CHECKING:
    from kd.audit.results import ResultsReport
    from kd.audit.scope import Repeat, Scope
    from kd.audit.target import Target

app = typer.Typer()

_GUESS = "path"


class GuessingGroup(TyperGroup):
    """A group that takes a first word which is none of its commands as a path to audit."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Put the guessing command before arguments that name none."""
        if args and args[0] not in self.commands and args[0] not in ctx.help_option_names:
            args = [_GUESS, *args]
        parsed: list[str] = super().parse_args(ctx, args)
        return parsed


def _table(text: str, cell: dict[str, str]) -> "Target":
    from kd.audit.target import table_target

    return table_target(Path(text), cell)


def _run(text: str, cell: dict[str, str]) -> "Target":
    from kd.audit.target import run_target

    _require_no_cell(cell)
    return run_target(Path(text))


def _experiment(text: str, cell: dict[str, str]) -> "Target":
    from kd.audit.target import experiment_target

    _require_no_cell(cell)
    return experiment_target(text)


def _guessed(text: str, cell: dict[str, str]) -> "Target":
    from kd.audit.target import guess_target

    target = guess_target(text, cell)
    if target.kind != "table":
        _require_no_cell(cell)
    return target


def _require_no_cell(cell: dict[str, str]) -> None:
    from kd.errors import ArtifactError

    if cell:
        raise ArtifactError("--cell chooses among the cells of a table: give the table's csv.")


def _command(find: Callable[[str, dict[str, str]], "Target"], what: str) -> Callable[..., None]:
    """One of the commands: they differ in how their argument is read."""

    def audit(
        target: Annotated[str, typer.Argument(help=what)],
        cell: Annotated[
            str,
            typer.Option(help="Of a table, only these cells: dataset=…,student=…,method=…,seed=…."),
        ] = "",
        strict: Annotated[bool, typer.Option(help="Let warnings fail, too.")] = False,
        json: Annotated[
            bool, typer.Option("--json", help="Print the report as JSON alone.")
        ] = False,
        all_: Annotated[bool, typer.Option("--all", help="Print every finding.")] = False,
        out: Annotated[
            Path | None, typer.Option(help="Folder to write audit.json and audit.html into.")
        ] = None,
        html: Annotated[Path | None, typer.Option(help="File to write the page into.")] = None,
        expect: Annotated[
            str | None,
            typer.Option(help="An identity that was kept elsewhere (12 digits or more)."),
        ] = None,
        experiment: Annotated[
            str | None, typer.Option(help="Name or file of the experiment, where it is another.")
        ] = None,
        config: Annotated[
            list[str] | None, typer.Option(help="KEY=VALUE, as the results were made with.")
        ] = None,
        tolerance: Annotated[
            float, typer.Option(help="Points that a published value may differ by.")
        ] = 1.0,
        workflow: Annotated[bool, typer.Option(help="Ask Snakemake what it would run.")] = False,
        repeat: Annotated[int, typer.Option(min=0, help="Make this many cells again.")] = 0,
        from_: Annotated[
            str,
            typer.Option("--from", help="rows, answers, logits, student or predictions."),
        ] = "student",
        pick: Annotated[str, typer.Option(help="Which cells: cheapest, or random.")] = "cheapest",
        seed: Annotated[int, typer.Option(help="Seed of the random choice.")] = 0,
        keep: Annotated[
            Path | None, typer.Option(help="Folder to leave in what was made again.")
        ] = None,
    ) -> None:
        from kd.audit.results import audit_results
        from kd.audit.scope import Settings
        from kd.audit.target import parse_cell

        settings = Settings(
            experiment=experiment,
            overrides=overrides(config or []),
            expect=expect,
            tolerance=tolerance,
            workflow=workflow,
            repeat=_repeat(repeat, from_, pick, seed, keep),
        )
        report, scope = audit_results(find(target, parse_cell(cell)), settings)
        _write(report, scope, out, html)
        _show(report, json=json, every=all_)
        raise typer.Exit(report.exit_code(strict=strict))

    return audit


def overrides(pairs: list[str]) -> dict[str, Any]:
    """`KEY=VALUE` as Snakemake reads them: the value is YAML."""
    import yaml

    from kd.errors import ExperimentError

    found = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals:
            raise ExperimentError(f"--config {pair}: no KEY=VALUE.")
        try:
            content = yaml.safe_load(value)
        except yaml.YAMLError:
            raise ExperimentError(
                f"--config {pair}: the value is no YAML. Quote it, and close its brackets."
            ) from None
        if key != "experiment":
            found[key] = content
    return found


def _repeat(count: int, start: str, pick: str, seed: int, keep: Path | None) -> "Repeat | None":
    from kd.audit.repeat import STARTS
    from kd.audit.scope import PICKS, Repeat
    from kd.errors import ExperimentError, nearest

    if start not in STARTS:
        raise ExperimentError(f"--from {start}: no such stage. {nearest(start, STARTS)}")
    if pick not in PICKS:
        raise ExperimentError(f"--pick {pick}: no such choice. {nearest(pick, PICKS)}")
    return Repeat(count, start, pick, seed, keep) if count > 0 else None


def _write(report: "ResultsReport", scope: "Scope", out: Path | None, html: Path | None) -> None:
    from kd.audit.page import render_page
    from kd.provenance.files import write_text

    if out is not None:
        write_text(out / "audit.json", report.to_json() + "\n")
        write_text(out / "audit.html", render_page(report, scope))
    if html is not None:
        write_text(html, render_page(report, scope))


def _show(report: "ResultsReport", *, json: bool, every: bool) -> None:
    from kd.audit.summary import print_findings, print_summary

    if json:
        print(report.to_json())
    elif every:
        print_findings(report, tables=False)
    else:
        print_summary(report, _more(report))


def _more(report: "ResultsReport") -> str:
    """The last line of the summary: the next command of the first failure, or how to see all."""
    first = report.findings[0] if report.findings else None
    if first is not None and first.status == "fail" and first.next_command:
        return f"Next: {first.next_command}   (every finding: --all, --json or --html FILE)"
    return "Every finding with its next command: --all, --json or --html FILE."


_TEXTS = {
    "table": (
        _table,
        "A table's csv: results/table2.csv, or results/<experiment>/tables/<table>.csv.",
        "Audit a table: every number back to the rows. Reads only; no network, no torch.",
        "Examples:  kd audit table results/table2.csv  |  "
        "kd audit table results/table2.csv --cell dataset=squad,student=opt,method=uld  |  "
        "kd audit table results/table2.csv --repeat 1 --from predictions",
    ),
    "run": (
        _run,
        "The folder of a run, or any folder below an experiment's results.",
        "Audit one run, and all that it was made from.",
        "Example:  kd audit run results/micro/runs/squad/llama/opt/uld/f100/s0",
    ),
    "experiment": (
        _experiment,
        "Name of an experiment, its file, or its results folder.",
        "Audit all tables and runs of an experiment.",
        "Example:  kd audit experiment micro",
    ),
    _GUESS: (_guessed, "A table, a run's folder, or an experiment.", "Audit whatever it is.", ""),
}

for _name, (_find, _what, _help, _epilog) in _TEXTS.items():
    app.command(_name, help=_help, epilog=_epilog or None, hidden=_name == _GUESS)(
        _command(_find, _what)
    )
