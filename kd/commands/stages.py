"""One command per stage of the chain.

A stage takes a specification (`--spec`, JSON or a file) and explicit paths, so that it also
works by hand.
"""

import os
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import typer

from kd.gpus import leased
from kd.provenance.locks import exclusive

app = typer.Typer()

Spec = Annotated[
    str, typer.Option(help="What the stage reads of the experiment: JSON text, or a file of it.")
]
ModelFolder = Annotated[Path, typer.Option(help="Model folder in the hub's format.")]
Checkpoints = Annotated[
    Path | None,
    typer.Option(help="Folder of what a killed process leaves to go on from; removed at the end."),
]
Gpus = Annotated[
    int | None,
    typer.Option(
        min=0, help="GPUs of its own; 0: the CPU. By default one if there is one.", metavar="N"
    ),
]
DataFolder = Annotated[Path, typer.Option(help="Folder with train, validation and test parquet.")]


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
    from kd.experiment.spec_files import parse_spec
    from kd.experiment.stages import DataSpec

    with exclusive(out):
        build_dataset(parse_spec(DataSpec, spec), root, out)


@app.command(
    epilog="Example:  kd pretrain --spec opt.json --data results/micro/data "
    "--out results/micro/models/opt"
)
def pretrain(
    spec: Spec,
    data: Annotated[Path, typer.Option(help="Folder that holds one folder per dataset.")],
    out: Annotated[Path, typer.Option(help="Folder to write model/ into.")],
    checkpoints: Checkpoints = None,
) -> None:
    """Train a micro model and its tokenizer on the datasets' own text."""
    from kd.experiment.spec_files import parse_spec
    from kd.experiment.stages import PretrainSpec
    from kd.models.stage import pretrain_model

    # Micro models are faster on a core of their own.
    with exclusive(out), leased(0):
        pretrain_model(parse_spec(PretrainSpec, spec), data, out, checkpoints)


@app.command(
    epilog='Example:  kd fetch --spec \'{"repo": "facebook/opt-350m", "revision": "…"}\' '
    "--out results/paper/hub/opt"
)
def fetch(
    spec: Spec, out: Annotated[Path, typer.Option(help="Folder to write model/ into.")]
) -> None:
    """Fetch a model and its tokenizer from the hub, or find them in its cache."""
    from kd.experiment.fetching import FetchSpec
    from kd.experiment.spec_files import parse_spec
    from kd.hub.models import fetch_model

    with exclusive(out):
        fetch_model(parse_spec(FetchSpec, spec), out)


@app.command(
    epilog="Example:  kd answer --spec answer.json --model results/micro/models/llama/model "
    "--data results/micro/data/squad --out results/micro/teachers/llama/squad/answers.parquet"
)
def answer(
    spec: Spec,
    model: ModelFolder,
    data: DataFolder,
    out: Annotated[Path, typer.Option(help="Parquet file to write.")],
    checkpoints: Checkpoints = None,
    gpus: Gpus = None,
) -> None:
    """Let a teacher answer the training and validation rows (its synthetic text)."""
    from kd.experiment.spec_files import parse_spec
    from kd.experiment.stages import AnswerSpec
    from kd.teacher.answers import write_answers

    with exclusive(out), leased(gpus):
        write_answers(parse_spec(AnswerSpec, spec), model, data, out, checkpoints)


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
    checkpoints: Checkpoints = None,
    gpus: Gpus = None,
) -> None:
    """Store the teacher's next-token distributions over its own answers, once for all runs."""
    from kd.experiment.spec_files import parse_spec
    from kd.experiment.stages import ExtractSpec
    from kd.teacher.extraction import extract_logits

    with exclusive(out), leased(gpus):
        extract_logits(parse_spec(ExtractSpec, spec), model, answers, out, checkpoints)


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
    checkpoints: Annotated[
        Path, typer.Option(help="Folder for checkpoints; its own are removed at the end.")
    ],
    logits: Annotated[
        Path | None, typer.Option(help="The teacher's logit store, where the loss reads it.")
    ] = None,
    teacher: Annotated[
        Path | None, typer.Option(help="The teacher's model folder, where the method runs it.")
    ] = None,
    gpus: Gpus = None,
) -> None:
    """Train one student with one method and seed. Continues where a killed run stopped."""
    from kd.experiment.spec_files import parse_spec
    from kd.experiment.stages import DistillSpec
    from kd.parallel.launch import is_rank, run_ranks

    parsed = parse_spec(DistillSpec, spec)
    processes = parsed.training.processes
    if processes > 1 and not is_rank():
        with exclusive(out), leased(gpus, usual=processes):
            run_ranks(processes)
        return
    from kd.training.distillation import distill as run

    inputs = {
        "student": student,
        "train": data / "train.parquet",
        "validation": data / "validation.parquet",
        "answers": answers,
    }
    given = {"logits": logits, "teacher": teacher}
    inputs |= {role: path for role, path in given.items() if path is not None}
    with ExitStack() as held:
        if processes == 1:  # otherwise whoever started them has the lock and the GPUs
            held.enter_context(exclusive(out))
            held.enter_context(leased(gpus))
        run(parsed, inputs, out, checkpoints)


@app.command(
    epilog="Example:  kd predict --spec predict.json --model …/s0/model "
    "--data results/micro/data/squad --out …/s0/eval/squad/predictions.parquet"
)
def predict(
    spec: Spec,
    model: ModelFolder,
    data: DataFolder,
    out: Annotated[Path, typer.Option(help="Parquet file to write.")],
    checkpoints: Checkpoints = None,
    base: Annotated[
        Path | None, typer.Option(help="The model that adapters in --model belong to.")
    ] = None,
    gpus: Gpus = None,
) -> None:
    """Answer the test rows, greedily."""
    from kd.evaluation.predict import predict as run
    from kd.experiment.spec_files import parse_spec
    from kd.experiment.stages import PredictSpec

    with exclusive(out), leased(gpus):
        run(parse_spec(PredictSpec, spec), model, data, out, checkpoints, base=base)


@app.command(
    epilog="Example:  kd score --spec score.json --predictions …/predictions.parquet "
    "--out …/scores.json"
)
def score(
    spec: Spec,
    predictions: Annotated[Path, typer.Option(help="What `kd predict` wrote.")],
    out: Annotated[Path, typer.Option(help="JSON file to write.")],
    gpus: Gpus = None,
) -> None:
    """Score predictions, per example and on average. Only BERTScore's encoder uses a GPU."""
    from kd.evaluation.score import score as run
    from kd.experiment.spec_files import parse_spec
    from kd.experiment.stages import ScoreSpec

    parsed = parse_spec(ScoreSpec, spec)
    encoder = parsed.evaluation.bertscore is not None
    with exclusive(out), leased(gpus if encoder else 0):
        if encoder:
            from kd.models.loading import pick_device

            pick_device()  # refuses a GPU that the encoder would pass over
        run(parsed, predictions, out)


@app.command(
    epilog="Example:  kd table --spec table2.json --results results/micro "
    "--out results/micro/tables"
)
def table(
    spec: Spec,
    results: Annotated[Path, typer.Option(help="The experiment's results folder.")],
    out: Annotated[Path, typer.Option(help="Folder to write csv, md, json and tex into.")],
    published: Annotated[
        Path | None, typer.Option(help="csv of published scores to show beside ours.")
    ] = None,
) -> None:
    """Lay scores out as a table, with the provenance of every cell."""
    from kd.experiment.spec_files import parse_spec
    from kd.experiment.stages import TableSpec
    from kd.tables.assembly import write_table

    parsed = parse_spec(TableSpec, spec)
    with exclusive(out / parsed.name):
        write_table(parsed, results, out, published)


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
        experiment=results.resolve().name,
        tracking_uri=os.environ.get("MLFLOW_TRACKING_URI"),
    )
    write_text(out, tracked.stamp())
