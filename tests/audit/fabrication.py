"""A finished experiment made by hand in half a second: real stages' manifests, no training.

Rows, scores and tables come from the real stages; weights, curves, answers and predictions are
small files made here, and recorded by the real `StageRecord`. A `Plan` says what is to be made
otherwise, consistently, as a careless or dishonest author would leave it.
"""

import csv
import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from kd.audit.recomputation import COPIED
from kd.data.micro import generate
from kd.data.prompts import choose_shots
from kd.data.rows import Row, write_rows
from kd.evaluation.predictions import Prediction, write_predictions
from kd.evaluation.score import score
from kd.experiment import stages
from kd.experiment.layout import Run, native_path, teacher_path
from kd.experiment.loading import load_experiment
from kd.experiment.schema import Experiment
from kd.experiment.spec_files import parse_spec
from kd.provenance import manifest
from kd.provenance.canonical import canonical_json
from kd.provenance.manifest import StageRecord, read_manifest
from kd.tables.assembly import write_table
from kd.tables.cost import Cost
from kd.training.code import distillation_modules
from tests.audit.small_files import (
    DATASET,
    MACHINE,
    STEPS,
    STUDENT,
    TEACHER,
    curve_of,
    predicted,
    weights_of,
    write_mlflow,
    write_model,
    write_published,
    write_readme,
    write_store,
)

ROOT = Path(__file__).resolve().parents[2]
COMMIT = "c0ffee" * 6 + "beef"
# How often each subject is right; runs vary a little with their seed.
SKILL = {"teacher": 0.95, "native": 0.2, "teacher_text": 0.5, "uld": 0.75}

Change = Callable[[Any], Any]


def same(value: Any) -> Any:
    return value


@dataclass(frozen=True)
class Plan:
    """How the experiment is made, where it is not made as it should be."""

    seeds: tuple[int, ...] = (0, 1, 2)  # that are made; three are declared
    spare: tuple[int, ...] = ()  # that are made, too, and in no table
    experiment: dict[str, Any] = field(default_factory=dict)  # keys laid over the file's
    code: dict[str, str] = field(default_factory=dict)  # digest recorded, by stage or method
    specs: dict[str, dict[str, Any]] = field(default_factory=dict)  # fields recorded, by folder
    numerics: dict[str, dict[str, Any]] = field(default_factory=dict)  # by part of a folder's name
    counts: dict[str, int] | None = None  # of training rows
    validation_is_test: bool = False
    rows: Change = same  # of the splits by name
    answers: Change = same  # of the teacher's texts
    weights: Callable[[Run, dict[str, Any]], dict[str, Any]] = lambda _, tensors: tensors
    curve: Change = same
    predictions: Callable[[str, list[Prediction]], list[Prediction]] = lambda _, made: made
    published: Change = same  # of the published values


@dataclass(frozen=True)
class World:
    """A folder laid out like a checkout in which the experiment has run."""

    root: Path

    @property
    def results(self) -> Path:
        return self.root / "results" / "tiny"

    @property
    def file(self) -> Path:
        return self.root / "experiments" / "tiny.yaml"

    @property
    def table(self) -> Path:
        return self.results / "tables" / "table2.csv"

    def run(self, method: str = "uld", seed: int = 0) -> Path:
        return self.results / run_of(method, seed).path

    def copy(self, target: Path) -> "World":
        """A copy that remembers its own paths; those are not hashed."""
        shutil.copytree(self.root, target, symlinks=True)
        for file in target.rglob("*.manifest.json"):
            text = file.read_text(encoding="utf-8")
            file.write_text(text.replace(f"{self.root}/", f"{target}/"), encoding="utf-8")
        return World(target)


def run_of(method: str, seed: int) -> Run:
    return Run(DATASET, TEACHER, STUDENT, method, 100, seed)


EXPERIMENT: dict[str, Any] = {
    "name": "tiny",
    "description": "made by hand",
    "datasets": {
        DATASET: {
            "source": "micro",
            "task": "qa",
            "metric": "f1",
            "splits": {"train": 24, "validation": 8, "test": 12, "pretraining": 16},
        }
    },
    "teachers": {TEACHER: {"architecture": "llama", "shots": {DATASET: 1}}},
    "students": {STUDENT: {"architecture": "opt", "shots": 1}},
    "methods": {"teacher_text": {"loss": "none"}, "uld": {"loss": "uld", "weight": 1.5}},
    "training": {"learning_rate": 0.001, "epochs": 2},
    "evaluation": {"metrics": ["f1", "exact_match"]},
    "seeds": [0, 1, 2],
    "tables": {"table2": {"title": "Overall"}},
    "claims": {
        "uld_beats_text": {
            "text": "ULD beats teacher text.",
            "table": "table2",
            "left": {"method": "uld"},
            "right": {"method": "teacher_text"},
        }
    },
    "published": "published.csv",
}
MODEL = {
    "source": "micro",
    "size": "tiny",
    "tokenizer": {"algorithm": "byte_bpe", "vocabulary": 400},
    "pretraining": {"steps": 10, "rows": 16},
}
for _block in ("teachers", "students"):
    EXPERIMENT[_block] = {name: MODEL | model for name, model in EXPERIMENT[_block].items()}


def fabricate(root: Path, plan: Plan | None = None) -> World:
    """Make the whole tree below `root`."""
    plan = plan or Plan()
    world = World(root)
    world.file.parent.mkdir(parents=True)
    world.file.write_text(yaml.safe_dump(EXPERIMENT | plan.experiment), encoding="utf-8")
    experiment = load_experiment(world.file)
    with recorded_as(plan):
        _Stages(world, experiment, plan).all()
    shutil.copy(ROOT / "requirements.lock", root)
    write_readme(world.root, world.table)
    write_mlflow(world.results)
    copy_table(world)
    return world


def remake_table(world: World) -> None:
    """Make the table, its copies and its tracking anew from what lies in the results."""
    (world.results / "mlflow.db").unlink()
    spec = stages.TableSpec.model_validate_json(
        canonical_json(read_manifest(world.table.with_suffix(".manifest.json"))["hashed"]["spec"])
    )
    published = world.file.with_name("published.csv")
    with recorded_as(Plan()):
        write_table(spec, world.results, world.table.parent, published)
        write_chart(world)
    write_mlflow(world.results)
    write_readme(world.root, world.table)
    copy_table(world)


def write_chart(world: World) -> None:
    """The table's charts, one empty picture each: what they show does not matter to an audit."""
    json = world.table.with_suffix(".json")
    folder, svg = world.table.with_suffix(".charts"), world.table.with_suffix(".svg")
    record = StageRecord(
        "chart",
        stages.ChartSpec(table="table2"),
        {"tables/table2.json": json},
        ("kd.report.chart",),
        name="table2.chart",
    )
    folder.mkdir(exist_ok=True)
    for file in (folder / "gains.svg", svg):
        file.write_text("<svg viewBox='0 0 1 1'></svg>\n", encoding="utf-8")
    record.write(folder, svg)


def copy_table(world: World) -> None:
    """Copy the table as the workflow's last rule does."""
    for suffix in COPIED:
        shutil.copy(world.table.with_suffix(suffix), world.results.parent)


@contextmanager
def recorded_as(plan: Plan) -> Iterator[None]:
    """Manifests that name one clean commit and one machine, and what `plan` says otherwise."""
    clock = [1_700_000_000.0]

    def tick() -> float:
        clock[0] += 5.0
        return clock[0]

    real = manifest.environment.numerics(tensors=False)
    now = real | MACHINE | {"deterministic": False}
    with (
        patch.object(manifest.environment, "numerics", lambda *, tensors: now | _CURRENT.numerics),
        patch.object(
            manifest.environment, "source_state", lambda: {"commit": COMMIT, "dirty": False}
        ),
        patch.object(manifest.time, "time", tick),
        patch.object(manifest, "code_digest", lambda *roots: _CURRENT.code or REAL_DIGEST(*roots)),
    ):
        yield


REAL_DIGEST = manifest.code_digest


class _Current:
    """What the record in the making is to say of its code and its machine."""

    code: str | None = None
    numerics: dict[str, Any] = {}


_CURRENT = _Current()


class _Stages:
    """The stages, one method each."""

    def __init__(self, world: World, experiment: Experiment, plan: Plan) -> None:
        self.world, self.results = world, world.results
        self.experiment, self.plan = experiment, plan
        self.data_folder = self.results / "data" / DATASET

    def all(self) -> None:
        splits = self.data()
        self.pretrain(TEACHER)
        self.pretrain(STUDENT)
        self.answer(splits)
        self.extract()
        self.evaluate("teacher", teacher_path(TEACHER, DATASET), TEACHER, 1, splits)
        self.evaluate("native", native_path(DATASET, STUDENT), STUDENT, 1, splits)
        for method in self.experiment.methods:
            for seed in (*self.plan.seeds, *self.plan.spare):
                run = run_of(method, seed)
                self.distill(run)
                self.evaluate(method, run.path, None, 0, splits, seed)
        self.table()

    def record(
        self, stage: str, spec: Any, inputs: dict[str, Path], code: Sequence[str], place: str
    ) -> StageRecord:
        """A record that says of itself what the plan wants it to say."""
        method = getattr(spec, "method", None)
        names = (stage, getattr(method, "loss", ""))
        _CURRENT.code = next((self.plan.code[n] for n in names if n in self.plan.code), None)
        _CURRENT.numerics = next(
            (found for part, found in self.plan.numerics.items() if part in f"{place}/{stage}"), {}
        )
        for part, changed in self.plan.specs.items():
            if part in f"{place}/{stage}":
                spec = spec.model_copy(update=changed)
        external = tuple(role for role in inputs if role in ("published",))
        return StageRecord(stage, spec, inputs, tuple(code), external=external)

    def data(self) -> dict[str, list[Row]]:
        sizes = {"train": 24, "validation": 8, "test": 12, "pretraining": 16}
        splits = self.plan.rows({name: generate(DATASET, name, n, 0) for name, n in sizes.items()})
        spec = stages.data_spec(self.experiment, DATASET)
        record = self.record("data", spec, {}, ("kd.data.sources",), f"data/{DATASET}")
        paths = {name: self.data_folder / f"{name}.parquet" for name in splits}
        for name, rows in splits.items():
            write_rows(rows, paths[name])
        record.write(*paths.values(), notes={"rows": {k: len(v) for k, v in splits.items()}})
        return splits

    def pretrain(self, name: str) -> None:
        spec = stages.pretrain_spec(self.experiment, name)
        inputs = {DATASET: self.data_folder / "pretraining.parquet"}
        folder = self.results / "models" / name
        record = self.record("pretrain", spec, inputs, ("kd.models.stage",), f"models/{name}")
        write_model(folder / "model", weights_of(f"pretrained {name}"))
        record.write(folder / "model")

    def answer(self, splits: dict[str, list[Row]]) -> None:
        folder = self.results / teacher_path(TEACHER, DATASET)
        spec = stages.answer_spec(self.experiment, TEACHER, DATASET)
        inputs = {"model": self.model(TEACHER)}
        inputs |= {
            split: self.data_folder / f"{split}.parquet" for split in ("train", "validation")
        }
        place = teacher_path(TEACHER, DATASET)
        record = self.record("answer", spec, inputs, ("kd.teacher.answers",), place)
        texts = [
            {"id": row.id, "split": split, "answer": row.answers[0], "finish_reason": "newline"}
            for split in ("train", "validation")
            for row in splits[split]
        ]
        folder.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.Table.from_pylist(self.plan.answers(texts)), folder / "answers.parquet")
        record.write(folder / "answers.parquet", notes={"answers": len(texts)})

    def extract(self) -> None:
        folder = self.results / teacher_path(TEACHER, DATASET)
        inputs = {"model": self.model(TEACHER), "answers": folder / "answers.parquet"}
        spec = stages.extract_spec(self.experiment)
        place = teacher_path(TEACHER, DATASET)
        record = self.record("extract", spec, inputs, ("kd.teacher.extraction",), place)
        write_store(folder / "logits")
        record.write(folder / "logits", notes={"rows": 2})

    def distill(self, run: Run) -> None:
        method = self.experiment.methods[run.method]
        spec = stages.distill_spec(self.experiment, run)
        validation = "test" if self.plan.validation_is_test else "validation"
        inputs = {
            "student": self.model(STUDENT),
            "train": self.data_folder / "train.parquet",
            "validation": self.data_folder / f"{validation}.parquet",
            "answers": self.results / teacher_path(TEACHER, DATASET) / "answers.parquet",
        }
        if method.loss != "none":
            inputs["logits"] = self.results / teacher_path(TEACHER, DATASET) / "logits"
        folder = self.results / run.path
        record = self.record("distill", spec, inputs, distillation_modules(method.loss), run.path)
        write_model(folder / "model", self.plan.weights(run, weights_of(run.path)))
        records = self.plan.curve(curve_of(run))
        text = "".join(json.dumps(entry) + "\n" for entry in records)
        (folder / "train.jsonl").write_text(text, encoding="utf-8")
        counts = self.plan.counts or {"rows": 23, "dropped_too_long": 0, "dropped_empty_answer": 0}
        # Whatever a table's costs are read from, and what the audit reads.
        notes: dict[str, Any] = {measured.name: 0.1 for measured in fields(Cost)} | {
            "counts": {"train": counts},
            "steps": STEPS,
            "selected": {"step": STEPS, "validation_loss": 1.0},
        }
        record.write(folder / "model", folder / "train.jsonl", notes=notes)

    def evaluate(
        self,
        kind: str,
        subject: str,
        model: str | None,
        shots: int,
        splits: dict[str, list[Row]],
        seed: int = 0,
    ) -> None:
        folder = self.results / subject / "eval" / DATASET
        spec = stages.predict_spec(self.experiment, DATASET, model)
        spec = spec.model_copy(update={"shots": shots})
        inputs = {
            "model": self.model(model) if model else self.results / subject / "model",
            "test": self.data_folder / "test.parquet",
        }
        if shots:
            inputs["train"] = self.data_folder / "train.parquet"
        place = f"{subject}/eval/{DATASET}"
        record = self.record("predict", spec, inputs, ("kd.evaluation.predict",), place)
        shown = choose_shots(splits["train"], shots, 0) if shots else []
        made = [predicted(row, shown, f"{kind}/{seed}", SKILL[kind]) for row in splits["test"]]
        write_predictions(self.plan.predictions(subject, made), folder / "predictions.parquet")
        record.write(folder / "predictions.parquet", notes={"rows": len(made)})
        score_spec = stages.score_spec(self.experiment)
        self.record("score", score_spec, {}, ("kd.evaluation.score",), place)  # sets what it says
        score(score_spec, folder / "predictions.parquet", folder / "scores.json")

    def table(self) -> None:
        published = self.world.file.with_name("published.csv")
        declared = stages.table_spec(self.experiment, "table2").model_dump(mode="json")
        # As a job is given it: canonical, its keys sorted.
        text = canonical_json(declared | {"seeds": list(self.plan.seeds)})
        spec = parse_spec(stages.TableSpec, text)
        self.record("table", spec, {}, ("kd.tables.assembly",), "tables")
        values = {"teacher_score": 0.0, "teacher_text": 0.0, "uld": 0.0}
        write_published(published, values)
        write_table(spec, self.results, self.results / "tables", published)
        # The published values are near ours: they are known only once ours are.
        with self.world.table.open() as file:
            ours = next(iter(csv.DictReader(file)))
        near = {column: float(ours[column]) + 0.25 for column in values}
        write_published(published, self.plan.published(near))
        write_table(spec, self.results, self.results / "tables", published)
        write_chart(self.world)

    def model(self, name: str) -> Path:
        return self.results / "models" / name / "model"
