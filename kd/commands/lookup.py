"""Commands that look something up and change nothing."""

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer()


@app.command(epilog="Example:  kd show results/table2.csv")
def show(table: Annotated[Path, typer.Argument(help="A table's csv file.")]) -> None:
    """Print a table on the terminal."""
    from kd.tables.show import print_table

    print_table(table)


@app.command(epilog="Examples:  kd check micro  |  kd check experiments/mine.yaml")
def check(
    experiment: Annotated[str, typer.Argument(help="Name or file of an experiment.")],
    config: Annotated[
        list[str] | None, typer.Option(help="KEY=VALUE, as for snakemake --config.")
    ] = None,
) -> None:
    """Validate an experiment file, and its models, data and machine: every finding at once.

    Exit status: 0 nothing stops it here, 1 something does, 2 the file is not valid.
    """
    from kd.check.experiment import check_experiment
    from kd.check.findings import counted
    from kd.commands.audit_results import overrides
    from kd.experiment.expansion import all_runs
    from kd.experiment.loading import find_experiment, load_experiment

    loaded = load_experiment(find_experiment(experiment), overrides(config or []))
    runs = len(all_runs(loaded))
    print(f"{loaded.name}: valid; tables {', '.join(loaded.tables)}; {runs} distillations")
    findings = check_experiment(loaded)
    for finding in findings:
        print(finding)
    if findings:
        print(counted(findings))
    if any(finding.severity == "error" for finding in findings):
        raise typer.Exit(1)


@app.command(epilog="Examples:  kd pin paper  |  kd pin paper --check")
def pin(
    experiment: Annotated[str, typer.Argument(help="Name or file of an experiment.")],
    check: Annotated[
        bool, typer.Option("--check", help="Only say what floats; exit status 1 if something does.")
    ] = False,
) -> None:
    """Replace branches and tags of the hub in an experiment file by the commits they stand for."""
    from kd.experiment.loading import find_experiment
    from kd.hub.pinning import floating, pin_file

    path = find_experiment(experiment)
    if check:
        found = floating(path)
        for one in found:
            print(f"{one.file.name}: {one.key}: {one.repository} floats")
        if found:
            raise typer.Exit(1)
        print(f"{path.name}: every revision is a commit")
        return
    pinned = pin_file(path)
    for key, repository, commit in pinned:
        print(f"{path.name}: {key}: {repository} is {commit}")
    if not pinned:
        print(f"{path.name}: every revision is a commit")


@app.command(epilog="Example:  kd experiments")
def experiments() -> None:
    """List the experiments that can be named."""
    from kd.experiment.loading import experiment_files, load_experiment

    files = experiment_files()
    width = max(len(path.stem) for path in files)
    for path in files:
        print(f"{path.stem:{width}} {load_experiment(path).description}")


@app.command(
    epilog="Examples:  kd losses  |  kd losses uld  |  kd losses --markdown > docs/losses.md"
)
def losses(
    name: Annotated[str | None, typer.Argument(help="One loss, or an alias of it.")] = None,
    markdown: Annotated[bool, typer.Option(help="Write the page docs/losses.md.")] = False,
) -> None:
    """List the losses that a method can name, with needs, options, defaults and sources."""
    from kd.losses.catalogue import available_losses, loss_info
    from kd.losses.documentation import render_losses

    if markdown:
        print(render_losses(), end="")
        return
    infos = available_losses().values() if name is None else [loss_info(name)]
    for info in infos:
        scope = "one tokenizer" if info.same_vocabulary else "any tokenizers"
        also = f", also {', '.join(info.aliases)}" if info.aliases else ""
        options = ", ".join(f"{option}={value!r}" for option, value in info.options.items())
        print(f"{info.name}{also}  ({info.family}; {scope})")
        print(f"  {info.summary if name is None else info.description}")
        print(f"  needs: {', '.join((*info.needs, *info.setup))}")
        print(f"  from a truncated teacher: {info.truncation}")
        print(f"  options: {options or 'none'}\n  source: {info.source}")
