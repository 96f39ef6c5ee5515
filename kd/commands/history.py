"""Commands that look at what was made: why it would be made again, and how two runs differ."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from kd.audit.explain import Explained
    from kd.audit.scope import Scope, Settings

app = typer.Typer()


@app.command(
    epilog="Examples:  kd explain results/table2.csv  |  "
    "kd explain results/micro/runs/squad/llama/opt/uld/f100/s0  |  kd explain micro"
)
def explain(
    target: Annotated[
        str, typer.Argument(help="A table, a run's folder, an artifact's file or an experiment.")
    ],
    experiment: Annotated[
        str | None, typer.Option(help="Name or file of the experiment, where it is another.")
    ] = None,
    config: Annotated[
        list[str] | None, typer.Option(help="KEY=VALUE, as for snakemake --config.")
    ] = None,
    workflow: Annotated[bool, typer.Option(help="Ask Snakemake, too, and compare.")] = False,
) -> None:
    """Say why a target would be made again: each field with its recorded and today's value."""
    from kd.audit.explain import explain as run
    from kd.audit.scope import Settings
    from kd.commands.audit_results import overrides

    settings = Settings(experiment=experiment, overrides=overrides(config or []))
    found, scope = run(target, settings)
    console = _console()
    if scope.experiment is None:
        console.print(f"Parameters cannot be compared: {scope.no_experiment}", soft_wrap=True)
    if not found:
        console.print(f"{target}: nothing would be made again.", soft_wrap=True)
    else:
        _print_reasons(console, target, found)
    if workflow:
        _cross_check(console, found, scope, settings)


def _print_reasons(console: "Console", target: str, found: "list[Explained]") -> None:
    own = [one for one in found if one.own]
    counts = f"{len(found)} artifacts would be made again, {len(own)} for reasons of their own"
    console.print(f"{target}: {counts}.", soft_wrap=True)
    for one in own:
        console.print(f"{one.artifact.stage}  {one.artifact.folder}", style="bold", soft_wrap=True)
        for reason in one.reasons:
            console.print(
                f"    {reason.what}: {reason.recorded} → {reason.now}", soft_wrap=True, markup=False
            )
    rest = [one for one in found if not one.own]
    if rest:
        console.print("Then, as they are made from these:")
        for one in rest:
            console.print(f"    {one.artifact.stage}  {one.artifact.folder}", soft_wrap=True)


def _cross_check(
    console: "Console", found: "list[Explained]", scope: "Scope", settings: "Settings"
) -> None:
    """What Snakemake itself would do, in its own words."""
    from kd.audit.snakemake_view import planned_jobs

    planned = planned_jobs(scope, settings)
    if planned is None:
        console.print("Snakemake: no Snakefile above these results makes this target.")
        return
    agrees = "agrees" if bool(planned) == bool(found) else "DISAGREES"
    console.print(f"Snakemake {agrees}: it would run {len(planned)} jobs.")
    for job in planned:
        console.print(f"    {job.job}: {job.reason[:200]}", soft_wrap=True, markup=False)


@app.command(
    epilog="Example:  kd compare results/micro/runs/squad/llama/opt/{teacher_text,uld}/f100/s0"
)
def compare(
    first: Annotated[Path, typer.Argument(metavar="RUN_A", help="A run's folder, or a table.")],
    second: Annotated[Path, typer.Argument(metavar="RUN_B", help="Another of the same kind.")],
) -> None:
    """Show how the manifests of two runs differ, worst first. Exit status as of `diff`: 0 equal."""
    from rich.table import Table

    from kd.audit.compare import compare_runs

    found = compare_runs(first, second)
    console = _console()
    if not found:
        console.print("No difference: parameters, code, inputs, versions and outputs are the same.")
        return
    table = Table(title=f"{len(found)} differences, worst first")
    for name in ("kind", "artifact", "field", "A", "B"):
        table.add_column(name, overflow="fold")
    for one in found:
        table.add_row(one.kind, one.artifact, one.field, one.first, one.second)
    console.print(table)
    raise typer.Exit(1)


def _console() -> "Console":
    from kd.tables.show import open_console

    return open_console()
