"""Command `claims`: what finished tables say of what was claimed."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from kd.tables.verdicts import Verdicts

app = typer.Typer()


@app.command(
    epilog="Examples:  kd claims micro  |  kd claims results/table2.csv --strict  |  "
    "kd claims micro --json"
)
def claims(
    target: Annotated[
        str,
        typer.Argument(
            metavar="[EXPERIMENT|TABLE]", help="Name or file of an experiment, or a table's file."
        ),
    ] = "micro",
    strict: Annotated[
        bool,
        typer.Option(
            help="Exit with 1 if a claim does not hold, with 2 if one was not put to the test."
        ),
    ] = False,
    json: Annotated[bool, typer.Option(help="Print JSON.")] = False,
) -> None:
    """Say of each claim whether it holds, does not hold, or is undecided at this power."""
    found = _verdicts(target)
    if json:
        print(found.as_json())
    else:
        _print(found)
    if strict:
        raise typer.Exit(found.exit_code())


def _verdicts(target: str) -> "Verdicts":
    from kd.experiment.loading import find_experiment, load_experiment
    from kd.tables.verdicts import TABLE_FILES, verdicts_of_experiment, verdicts_of_table

    path = Path(target)
    if path.suffix in TABLE_FILES:
        return verdicts_of_table(path)
    experiment = load_experiment(find_experiment(target))
    return verdicts_of_experiment(experiment, Path("results") / experiment.name)


def _print(found: "Verdicts") -> None:
    from rich.table import Table
    from rich.text import Text

    from kd.tables.show import open_console

    colours = {"holds": "green", "does not hold": "red", "undecided": "yellow"}
    console = open_console()
    if found.claims:
        table = Table(title=f"Claims of {found.experiment}", show_lines=True)
        for name in ("table", "claim", "verdict", "what the scores say"):
            table.add_column(name, overflow="fold")
        for claim in found.claims:
            verdict = Text(claim.outcome, style=colours[claim.outcome])
            about = Text(f"{claim.name}: {claim.text}")
            table.add_row(claim.table, about, verdict, Text(claim.sentence))
        console.print(table)
    elif not (found.not_made or found.not_judged):
        console.print(f"{found.experiment}: no claims.")
    for name in found.not_made:
        make = f"snakemake results/{found.experiment}/tables/{name}.csv"
        console.print(f"{name}: not made yet. Make it with `{make}`.", soft_wrap=True)
    for unknown in found.not_judged:
        console.print(
            f"{unknown}: written or edited after its table was made. Make the table again.",
            soft_wrap=True,
            markup=False,
        )
