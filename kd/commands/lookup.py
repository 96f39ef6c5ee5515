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
) -> None:
    """Validate an experiment file and report every finding at once."""
    from kd.experiment.expansion import all_runs
    from kd.experiment.loading import find_experiment, load_experiment

    loaded = load_experiment(find_experiment(experiment))
    runs = len(all_runs(loaded))
    print(f"{loaded.name}: valid; tables {', '.join(loaded.tables)}; {runs} distillations")


@app.command(epilog="Example:  kd experiments")
def experiments() -> None:
    """List the experiments that can be named."""
    from kd.experiment.loading import experiment_files, load_experiment

    for path in experiment_files():
        print(f"{path.stem:10} {load_experiment(path).description}")


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
