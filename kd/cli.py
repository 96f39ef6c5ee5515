"""The `kd` command: one subcommand per stage of the chain, and a few that look things up.

`kd.commands` holds the subcommands. Nothing heavy is imported before one of them runs.
"""

import os
import sys
from typing import Annotated, Any, NoReturn

import typer

import kd
from kd import interruption
from kd.commands import audit, claims, export, history, lookup, planning, report, stages
from kd.errors import KdError
from kd.provenance.storage import storage_trouble
from kd.worker.client import delegate

USAGE_ERROR = 2

app = typer.Typer(
    name="kd",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help=(
        "Declarative, auditable reproduction of knowledge-distillation experiments.\n\n"
        "Snakemake runs the whole chain (`snakemake results/table2.csv`); each of its steps is "
        "one of the commands below. `snakemake -np TARGET` prints them with their arguments."
    ),
    epilog=(
        "Examples:  kd check micro  |  kd losses  |  kd show results/table2.csv  |  "
        "snakemake results/table2.csv"
    ),
)
app.add_typer(stages.app)
app.add_typer(lookup.app)
app.add_typer(planning.app)
app.add_typer(claims.app)
app.add_typer(audit.app, name="audit")
app.add_typer(history.app)
app.add_typer(export.app, name="export")
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


def _prepare_environment() -> None:
    """Settings that must stand before torch or mlflow is imported; the caller's own win."""
    defaults: dict[str, Any] = {
        # One thread a job: two spin at barriers and lose by far under any other load.
        "OMP_NUM_THREADS": "1",
        "OMP_WAIT_POLICY": "PASSIVE",
        "TOKENIZERS_PARALLELISM": "false",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "HF_HUB_DISABLE_TELEMETRY": "1",
    }
    for name, value in defaults.items():
        os.environ.setdefault(name, value)


def main() -> None:
    """Entry point: what a user can cause becomes one sentence and exit status 2.

    A signal ends in status 75: the same command goes on.
    """
    _prepare_environment()
    interruption.install()
    try:
        status = delegate() if len(sys.argv) > 1 and sys.argv[1] in stages.SLOW_TO_IMPORT else None
        if status is not None:
            sys.exit(status)
        app(prog_name="kd")
    except interruption.Interrupted as stopped:
        print(f"kd: interrupted: {stopped}", file=sys.stderr)
        sys.exit(interruption.EXIT_STATUS)
    except KdError as error:
        _refuse(str(error))
    except Exception as error:
        trouble = storage_trouble(error)
        if trouble is None:
            raise
        _refuse(trouble)


def _refuse(reason: str) -> NoReturn:
    for line in reason.splitlines():
        print(f"kd: error: {line}", file=sys.stderr)
    sys.exit(USAGE_ERROR)


if __name__ == "__main__":
    main()
