"""The `kd` command: one subcommand per stage of the chain, and a few that look things up.

Stages take a specification (`--spec`, JSON or a file) and explicit paths, so that each also
works by hand. Nothing heavy is imported before a command runs.
"""

import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

import kd
from kd.errors import KdError

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

Spec = Annotated[
    str, typer.Option(help="What the stage reads of the experiment: JSON text, or a file of it.")
]
ModelFolder = Annotated[Path, typer.Option(help="Model folder in the hub's format.")]
DataFolder = Annotated[Path, typer.Option(help="Folder with train, validation and test parquet.")]


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


@app.command(epilog="Example:  kd data --spec squad.json --out results/micro/data/squad")
def data(
    spec: Spec,
    out: Annotated[Path, typer.Option(help="Folder to write the splits into.")],
    root: Annotated[Path, typer.Option(help="Folder of the files that the dataset names.")] = Path(
        "."
    ),
) -> None:
    """Write the rows of one dataset: generated, or read from files or the hub."""
    from kd.data.sources import build_dataset
    from kd.experiment.stages import DataSpec, parse_spec

    build_dataset(parse_spec(DataSpec, spec), root, out)


@app.command(
    epilog="Example:  kd pretrain --spec opt.json --data results/micro/data "
    "--out results/micro/models/opt"
)
def pretrain(
    spec: Spec,
    data: Annotated[Path, typer.Option(help="Folder that holds one folder per dataset.")],
    out: Annotated[Path, typer.Option(help="Folder to write model/ into.")],
) -> None:
    """Train a micro model and its tokenizer on the datasets' own text."""
    from kd.experiment.stages import PretrainSpec, parse_spec
    from kd.models.stage import pretrain_model

    pretrain_model(parse_spec(PretrainSpec, spec), data, out)


@app.command(
    epilog="Example:  kd answer --spec answer.json --model results/micro/models/llama/model "
    "--data results/micro/data/squad --out results/micro/teachers/llama/squad/answers.parquet"
)
def answer(
    spec: Spec,
    model: ModelFolder,
    data: DataFolder,
    out: Annotated[Path, typer.Option(help="Parquet file to write.")],
) -> None:
    """Let a teacher answer the training and validation rows (its synthetic text)."""
    from kd.experiment.stages import AnswerSpec, parse_spec
    from kd.teacher.answers import write_answers

    write_answers(parse_spec(AnswerSpec, spec), model, data, out)


@app.command(
    epilog="Example:  kd extract --spec extract.json --model results/micro/models/llama/model "
    "--answers results/micro/teachers/llama/squad/answers.parquet "
    "--out results/micro/teachers/llama/squad/logits"
)
def extract(
    spec: Spec,
    model: ModelFolder,
    answers: Annotated[Path, typer.Option(help="What `kd answer` wrote.")],
    out: Annotated[Path, typer.Option(help="Folder of the logit store.")],
) -> None:
    """Store the teacher's next-token distributions over its own answers, once for all runs."""
    from kd.experiment.stages import ExtractSpec, parse_spec
    from kd.teacher.extraction import extract_logits

    extract_logits(parse_spec(ExtractSpec, spec), model, answers, out)


@app.command(
    epilog="Example:  kd distill --spec run.json --student results/micro/models/opt/model "
    "--data results/micro/data/squad --answers …/answers.parquet --logits …/logits "
    "--out results/micro/runs/squad/llama/opt/uld/f100/s0 --checkpoints checkpoints/micro"
)
def distill(
    spec: Spec,
    student: ModelFolder,
    data: DataFolder,
    answers: Annotated[Path, typer.Option(help="The teacher's answers.")],
    out: Annotated[Path, typer.Option(help="Folder to write model/ and train.jsonl into.")],
    checkpoints: Annotated[Path, typer.Option(help="Folder for checkpoints; emptied at the end.")],
    logits: Annotated[
        Path | None, typer.Option(help="The teacher's logit store, where the loss reads it.")
    ] = None,
) -> None:
    """Train one student with one method and seed. Continues where a killed run stopped."""
    from kd.experiment.stages import DistillSpec, parse_spec
    from kd.training.distillation import distill as run

    inputs = {
        "student": student,
        "train": data / "train.parquet",
        "validation": data / "validation.parquet",
        "answers": answers,
    }
    if logits is not None:
        inputs["logits"] = logits
    run(parse_spec(DistillSpec, spec), inputs, out, checkpoints)


@app.command(
    epilog="Example:  kd predict --spec predict.json --model …/s0/model "
    "--data results/micro/data/squad --out …/s0/eval/squad/predictions.parquet"
)
def predict(
    spec: Spec,
    model: ModelFolder,
    data: DataFolder,
    out: Annotated[Path, typer.Option(help="Parquet file to write.")],
) -> None:
    """Answer the test rows, greedily."""
    from kd.evaluation.predict import predict as run
    from kd.experiment.stages import PredictSpec, parse_spec

    run(parse_spec(PredictSpec, spec), model, data, out)


@app.command(
    epilog="Example:  kd score --spec score.json --predictions …/predictions.parquet "
    "--out …/scores.json"
)
def score(
    spec: Spec,
    predictions: Annotated[Path, typer.Option(help="What `kd predict` wrote.")],
    out: Annotated[Path, typer.Option(help="JSON file to write.")],
) -> None:
    """Score predictions, per example and on average."""
    from kd.evaluation.score import score as run
    from kd.experiment.stages import ScoreSpec, parse_spec

    run(parse_spec(ScoreSpec, spec), predictions, out)


@app.command(
    epilog="Example:  kd table --spec table2.json --results results/micro "
    "--out results/micro/tables"
)
def table(
    spec: Spec,
    results: Annotated[Path, typer.Option(help="The experiment's results folder.")],
    out: Annotated[Path, typer.Option(help="Folder to write csv, md and json into.")],
    published: Annotated[
        Path | None, typer.Option(help="csv of published scores to show beside ours.")
    ] = None,
) -> None:
    """Lay scores out as a table, with the provenance of every cell."""
    from kd.experiment.stages import TableSpec, parse_spec
    from kd.tables.assembly import write_table

    write_table(parse_spec(TableSpec, spec), results, out, published)


@app.command(
    epilog="Example:  kd track --table results/micro/tables/table2.json --results results/micro "
    "--out results/micro/tables/table2.tracked.json  (MLFLOW_TRACKING_URI names a server)"
)
def track(
    table: Annotated[Path, typer.Option(help="A table's json: its runs are tracked.")],
    results: Annotated[Path, typer.Option(help="The experiment's results folder.")],
    out: Annotated[Path, typer.Option(help="JSON file that lists what is tracked.")],
) -> None:
    """Project finished runs into MLflow (results/<experiment>/mlflow.db); safe to repeat."""
    from kd.provenance.files import write_text
    from kd.tracking import scores_of_table
    from kd.tracking import track as run

    scores = scores_of_table(table)
    tracked = run(
        results,
        scores,
        experiment=results.name,
        tracking_uri=os.environ.get("MLFLOW_TRACKING_URI"),
    )
    write_text(out, tracked.stamp())


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


@app.command(epilog="Example:  kd losses")
def losses() -> None:
    """List the losses that a method can name, with their options and sources."""
    from kd.losses.catalogue import available_losses

    for info in available_losses().values():
        scope = "same tokenizer" if info.same_vocabulary else "any tokenizers"
        options = ", ".join(f"{name}={value!r}" for name, value in info.options.items())
        print(f"{info.name}  ({info.family}; {scope})\n  {info.summary}")
        print(f"  needs: {', '.join(info.needs)}; from a truncated teacher: {info.truncation}")
        print(f"  options: {options or 'none'}\n  source: {info.source}")


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
    """Entry point: a `KdError` becomes one sentence and exit status 2."""
    _prepare_environment()
    try:
        app()
    except KdError as error:
        for line in str(error).splitlines():
            print(f"kd: error: {line}", file=sys.stderr)
        sys.exit(USAGE_ERROR)
