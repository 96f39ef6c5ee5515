"""The command that says what a target would take, before anything runs."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from kd.plan.plan import Plan, StagePlan

app = typer.Typer()


@app.command(
    epilog="Examples:  kd plan results/table2.csv  |  kd plan --experiment beyond --cores 8  |  "
    "kd plan results/table2.csv --config seeds=3"
)
def plan(
    targets: Annotated[
        list[str] | None,
        typer.Argument(metavar="[TARGET]...", help="Files to be made; by default everything."),
    ] = None,
    experiment: Annotated[
        str, typer.Option(help="As for snakemake --config experiment=NAME.")
    ] = "micro",
    config: Annotated[
        list[str] | None, typer.Option(help="KEY=VALUE, as for snakemake --config.")
    ] = None,
    cores: Annotated[int | None, typer.Option(min=1, help="Jobs at a time; one a core.")] = None,
    json: Annotated[bool, typer.Option(help="Print JSON.")] = False,
) -> None:
    """Say which jobs a target takes, which of them are done, and how long the rest will run."""
    import os

    from kd.commands.audit_results import overrides
    from kd.experiment.loading import find_experiment, load_experiment
    from kd.plan.plan import make_plan

    values = overrides(config or [])
    loaded = load_experiment(find_experiment(experiment), values)
    found = make_plan(
        targets or [],
        loaded,
        overrides=values,
        checkout=Path.cwd(),
        workers=cores or len(os.sched_getaffinity(0)),
    )
    if json:
        _print_json(found)
    else:
        _print_plan(found)


def _print_json(plan: "Plan") -> None:
    import json
    from dataclasses import asdict

    print(json.dumps(asdict(plan) | {"busy": plan.busy}, indent=1))


def _print_plan(plan: "Plan") -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table()
    table.add_column("stage")
    for name in ("jobs", "done", "to run", "time"):
        table.add_column(name, justify="right")
    table.add_column("estimated from")
    for stage in plan.stages:
        pending = stage.jobs - stage.cached
        cells = (str(stage.jobs), str(stage.cached), str(pending), duration(stage.seconds))
        table.add_row(stage.stage, *cells, _origins(stage))
    console = Console(highlight=False)
    console.print(table)
    total = sum(stage.jobs - stage.cached for stage in plan.stages)
    if not total:
        console.print("Nothing to do: all of it is there and current.")
        return
    console.print(
        f"{total} jobs, {duration(plan.busy)} of work: {duration(plan.seconds)} with "
        f"{plan.workers} at a time; no less than {duration(plan.critical)} with any number.",
        soft_wrap=True,
    )


def _origins(stage: "StagePlan") -> str:
    if not stage.origins:
        return ""
    if len(stage.origins) == 1:
        return next(iter(stage.origins))
    return ", ".join(f"{origin} ({count})" for origin, count in sorted(stage.origins.items()))


def duration(seconds: float) -> str:
    """Seconds for people: 42 s, 3 min 20 s, 2 h 05 min."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"
