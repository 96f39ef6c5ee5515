"""All subcommands as one application. Nothing heavy is imported before one of them runs."""

from typing import Annotated

import typer

import kd
from kd.commands import audit, claims, export, history, lookup, planning, report, stages

app = typer.Typer(
    name="kd",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120},
    help=(
        "Declarative, auditable reproduction of knowledge-distillation experiments.\n\n"
        "Snakemake runs the whole chain (`snakemake results/table2.csv`). Its steps are the "
        "commands from `data` to `track`, `chart` and `report`: `snakemake -np TARGET` prints them "
        "with their arguments. The others are for you."
    ),
    epilog=(
        "Examples:  kd check micro  |  kd losses  |  kd show results/table2.csv  |  "
        "snakemake results/table2.csv"
    ),
)
app.add_typer(lookup.app)
app.add_typer(planning.app)
app.add_typer(claims.app)
app.add_typer(audit.app, name="audit")
app.add_typer(history.app)
app.add_typer(export.app, name="export")
app.add_typer(stages.app)
app.add_typer(report.app)


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        print(f"kd {kd.__version__}, torch {version('torch')}, snakemake {version('snakemake')}")
        raise typer.Exit


@app.callback()
def _main(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print versions.")
    ] = False,
) -> None:
    """Settings common to all commands."""
