"""Command `claims`: what finished tables say of what was claimed."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from kd.report.verdicts import Verdicts

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
    from kd.experiment.schema import Experiment
    from kd.report.verdicts import TABLE_FILES, verdicts_of_experiment, verdicts_of_table

    def named(name: str) -> Experiment | None:
        file = find_experiment(name)
        return load_experiment(file) if file.is_file() else None

    path = Path(target)
    if path.suffix in TABLE_FILES:
        return verdicts_of_table(path, named)
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
    for sentence in _doubts(found):
        console.print(sentence, soft_wrap=True, markup=False)


def _doubts(found: "Verdicts") -> Iterator[str]:
    """Why verdicts may not be about what the experiment file says today."""
    for name in found.not_judged:
        yield f"{name}: written or edited after its table was made. Make the table again."
    for name in found.withdrawn:
        yield f"{name}: no longer in the experiment file. Make the table again."
    for what in found.outdated:
        yield f"{what}: the experiment file was edited since. Make the table again."
    if found.unknown:
        yield (
            f"There is no experiment '{found.experiment}' to compare with: whether it, or its "
            "claims, were edited since the table was made is not checked. Give its file instead "
            "of the table."
        )
