"""The command that says what a target would take, before anything runs."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from kd.plan.demands import Demands
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
    device: Annotated[
        str, typer.Option(help="GPU for real models: a100, h100, h200, l40s, rtx4090.")
    ] = "a100",
    price: Annotated[
        float | None, typer.Option(min=0, help="Of a GPU-hour, in any currency.")
    ] = None,
    limits: Annotated[
        bool, typer.Option("--limits", help="Print limits for a batch system's profile (YAML).")
    ] = False,
    json: Annotated[bool, typer.Option(help="Print JSON.")] = False,
) -> None:
    """Say which jobs a target takes, which of them are done, and how long the rest will run."""
    import os

    from kd.commands.audit_results import overrides
    from kd.experiment.loading import find_experiment, load_experiment
    from kd.plan.devices import device_called
    from kd.plan.plan import make_plan

    for pair in config or []:
        if pair.startswith("experiment="):  # as snakemake takes it; the last one counts
            experiment = pair.partition("=")[2]
    values = overrides(config or [])
    loaded = load_experiment(find_experiment(experiment), values)
    _refuse_names(targets or [])
    found = make_plan(
        targets or [],
        loaded,
        overrides=values,
        checkout=Path.cwd(),
        workers=cores or len(os.sched_getaffinity(0)),
        device=device_called(device),
    )
    if json:
        _print_json(found)
    elif limits:
        _print_limits(found)
    else:
        _print_plan(found, price)


def _refuse_names(targets: list[str]) -> None:
    """Other commands take an experiment's name; here a target is a file."""
    from kd.errors import ExperimentError
    from kd.experiment.loading import experiment_files

    for target in targets:
        if target in {path.stem for path in experiment_files()} and not Path(target).exists():
            raise ExperimentError(
                f"{target}: an experiment, and no file to be made. Write --experiment {target}."
            )


def _print_json(plan: "Plan") -> None:
    import json
    from dataclasses import asdict

    print(json.dumps(asdict(plan) | {"busy": plan.busy}, indent=1))


def _print_limits(plan: "Plan") -> None:
    from kd.workflow import limits_as_profile

    known = {one.stage: one.limit for one in plan.stages if one.limit is not None}
    print("# in profiles/slurm/profile.yaml; it takes the place of the whole block there")
    print(limits_as_profile({name: (one.runtime, one.mem_mb) for name, one in known.items()}))
    for one in plan.stages:
        if one.limit is None:
            print(f"  # {one.stage}: how long it takes is unknown; keep what the profile says")


def _print_plan(plan: "Plan", price: float | None) -> None:
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
    if plan.demands is not None:
        for line in demand_lines(plan.demands, price):
            console.print(line, soft_wrap=True)


def demand_lines(demands: "Demands", price: float | None) -> list[str]:
    """GPU time, price and disk in sentences."""
    hours = demands.gpu_seconds / 3600
    added = _hours(demands.teacher_seconds)
    cost = "" if price is None else f", {hours * price:,.2f} at {price:g} an hour"
    return [
        f"GPU: {_hours(demands.gpu_seconds)} of one {demands.device}{cost}.",
        f"Disk: logits {size(demands.stores)} (whole distributions in float16 would take "
        f"{size(demands.dense)}), students {size(demands.students)}, checkpoints up to "
        f"{size(demands.checkpoint)} for each distillation that runs.",
        f"Without stored logits, a teacher that ran in every step would add {added}.",
    ]


def _hours(seconds: float) -> str:
    hours = seconds / 3600
    return f"{hours:,.0f} hours" if hours >= 10 else f"{hours:.2g} hours"


def size(count: float) -> str:
    """Bytes for people, in powers of ten: 3.2 GB."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} TB"


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
