"""What each stage reads of the experiment: its specification, and nothing else.

A specification is the unit of re-running. Editing a key that a stage does not read leaves
its specification, and so its artifact, as they are.
"""

from collections.abc import Iterator
from typing import Any

from pydantic import Field

from kd.errors import ExperimentError
from kd.experiment.base import Grown, Name, Natural, Percent, Rate, Score, Strict
from kd.experiment.claims import NamedClaim, named
from kd.experiment.datasets import Dataset
from kd.experiment.expansion import (
    axis_columns,
    row_axes,
    table_methods,
    table_of,
    table_rows,
    used_datasets,
)
from kd.experiment.layout import Run
from kd.experiment.logits import DEFAULT, Logits, find_variant, variant_of
from kd.experiment.methods import Method
from kd.experiment.models import MicroModel, PromptForm, Prompting
from kd.experiment.placement import Placement
from kd.experiment.requirements import reads_logits, reads_teacher_model
from kd.experiment.schema import Evaluation, Experiment, Generation, Training


class DataSpec(Strict):
    """Stage `data`: the rows of one dataset."""

    name: Name
    dataset: Dataset
    seed: Natural


class PretrainSpec(Strict):
    """Stage `pretrain`: one micro model, from the rows of all datasets."""

    name: Name
    model: MicroModel
    datasets: list[Name]


class AnswerSpec(Grown):
    """Stage `answer`: a teacher's synthetic text for the training and validation rows."""

    later = frozenset(["load"])

    dataset: Name
    shots: Natural
    prompt: PromptForm = PromptForm()
    seed: Natural
    generation: Generation
    load: Placement | None = None


class ExtractSpec(Grown):
    """Stage `extract`: a teacher's next-token distributions over its own answers."""

    later = frozenset(["load"])

    logits: Logits
    load: Placement | None = None


class DistillSpec(Grown):
    """Stage `distill`: one student, one method, one seed."""

    later = frozenset(["teacher_load"])

    dataset: Name
    method: Method
    training: Training
    fraction: Percent
    seed: Natural
    max_logit_error: Rate | None = None
    teacher_load: Placement | None = None


class PredictSpec(Grown):
    """Stage `predict`: greedy answers for the test rows."""

    later = frozenset(["load"])

    dataset: Name
    shots: Natural
    prompt: PromptForm = PromptForm()
    seed: Natural
    generation: Generation
    load: Placement | None = None


class ScoreSpec(Strict):
    """Stage `score`: metrics of predictions."""

    evaluation: Evaluation


class TableSpec(Strict):
    """Stage `table`: which scores make which cell."""

    experiment: Name
    name: Name
    title: str
    columns: list[str]
    rows: list[dict[str, Any]]
    methods: list[Name]
    baseline: Name
    metrics: dict[Name, Score]
    seeds: list[Natural]
    published: str | None
    claims: list[NamedClaim] = []

    @property
    def one_method_a_line(self) -> bool:
        """Whether the table has one line a method, instead of one column."""
        return "method" in self.columns

    def metrics_on(self, dataset: str) -> set[str]:
        """Metrics by which the table shows answers to the test rows of `dataset`."""
        lines = [row for row in self.rows if (row.get("test") or row["dataset"]) == dataset]
        return {row.get("metric") or self.metrics[dataset] for row in lines}

    def runs(self) -> list[Run]:
        """The distillations behind the table, each once, in the order of its lines."""
        return list(dict.fromkeys(self._runs()))

    def _runs(self) -> Iterator[Run]:
        for axes in self.rows:
            place = (axes["dataset"], axes["teacher"], axes["student"])
            methods = [self.baseline, axes["method"]] if self.one_method_a_line else self.methods
            for method in methods:
                for seed in self.seeds:
                    yield Run(*place, method, axes["fraction"], seed)


class ChartSpec(Strict):
    """Stage `chart`: a table's charts. What they show is all in the table."""

    table: Name


class ReportSpec(Strict):
    """The report of an experiment: its tables, and what is said around them."""

    experiment: Name
    description: str
    tables: list[Name] = Field(min_length=1)
    deviations: list[str]


def data_spec(experiment: Experiment, dataset: str) -> DataSpec:
    """Specification of the rows of `dataset`. Its metric and published size are not read."""
    unread = {"metric": "f1"} | (
        {"rows": None} if experiment.datasets[dataset].source == "hub" else {}
    )
    declared = experiment.datasets[dataset].model_copy(update=unread)
    return DataSpec(name=dataset, dataset=declared, seed=experiment.seed)


def pretrain_spec(experiment: Experiment, name: str) -> PretrainSpec:
    """Specification of a micro model. Its shots belong to its prompts, not to its making."""
    model = (experiment.teachers | experiment.students)[name]
    if not isinstance(model, MicroModel):
        raise ExperimentError(
            f"experiment '{experiment.name}': '{name}' has source '{model.source}', so there is "
            "nothing to pretrain."
        )
    return PretrainSpec(
        name=name,
        model=model.model_copy(update={"shots": 0, "load": None, "prompt": Prompting()}),
        datasets=used_datasets(experiment),
    )


def answer_spec(experiment: Experiment, teacher: str, dataset: str) -> AnswerSpec:
    """Specification of a teacher's answers on `dataset`."""
    return AnswerSpec(
        dataset=dataset,
        shots=experiment.teachers[teacher].shots_on(dataset),
        prompt=experiment.teachers[teacher].prompt.on(dataset),
        seed=experiment.seed,
        generation=experiment.generation,
        load=experiment.teachers[teacher].load,
    )


def extract_spec(
    experiment: Experiment, variant: str = DEFAULT, teacher: str | None = None
) -> ExtractSpec:
    """Specification of a variant of the stored logits of `teacher`.

    Raises:
        ExperimentError: there is no such variant.
    """
    load = None if teacher is None else experiment.teachers[teacher].load
    return ExtractSpec(logits=find_variant(variant, experiment.logits), load=load)


def distill_spec(experiment: Experiment, run: Run) -> DistillSpec:
    """Specification of one run. Its method names the logits that it reads, but the default."""
    method = experiment.methods[run.method]
    stored = reads_logits(method)
    variant = variant_of(method, experiment.logits)
    named = variant if stored and variant != DEFAULT else None
    return DistillSpec(
        dataset=run.dataset,
        method=method.model_copy(update={"logits": named}),
        training=experiment.training_for(run.dataset),
        fraction=run.fraction,
        seed=run.seed,
        max_logit_error=experiment.max_logit_error if stored else None,
        teacher_load=experiment.teachers[run.teacher].load if reads_teacher_model(method) else None,
    )


def predict_spec(
    experiment: Experiment, dataset: str, model: str | None = None, made_of: str | None = None
) -> PredictSpec:
    """Specification of predictions on `dataset`.

    `model` is a teacher or a student before distillation, asked in its own way. A student that
    was distilled, `made_of` one of the experiment, is asked as it was trained: plainly, without
    shots.
    """
    models = experiment.teachers | experiment.students
    asked = None if model is None else models[model]
    loaded = model or made_of
    return PredictSpec(
        dataset=dataset,
        shots=0 if asked is None else asked.shots_on(dataset),
        prompt=PromptForm() if asked is None else asked.prompt.on(dataset),
        seed=experiment.seed,
        generation=experiment.generation,
        load=None if loaded is None else models[loaded].load,
    )


def score_spec(experiment: Experiment) -> ScoreSpec:
    """Specification of the scores."""
    return ScoreSpec(evaluation=experiment.evaluation)


def chart_spec(experiment: Experiment, name: str) -> ChartSpec:
    """Specification of a table's charts."""
    table_of(experiment, name)
    return ChartSpec(table=name)


def report_spec(experiment: Experiment) -> ReportSpec:
    """Specification of the report."""
    return ReportSpec(
        experiment=experiment.name,
        description=experiment.description,
        tables=list(experiment.tables),
        deviations=experiment.deviations,
    )


def table_spec(experiment: Experiment, name: str) -> TableSpec:
    """Specification of a table: its lines, methods, seeds and each dataset's metric."""
    table = table_of(experiment, name)
    rows = table_rows(experiment, name)
    datasets = dict.fromkeys(row.tested for row in rows)
    return TableSpec(
        experiment=experiment.name,
        name=name,
        title=table.title,
        columns=axis_columns(table),
        rows=[row_axes(row) for row in rows],
        methods=table_methods(experiment, table),
        baseline=table.baseline,
        metrics={dataset: experiment.datasets[dataset].metric for dataset in datasets},
        seeds=experiment.seeds,
        published=experiment.published,
        claims=[
            named(label, claim) for label, claim in experiment.claims.items() if claim.table == name
        ],
    )
