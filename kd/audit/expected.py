"""What a stage would be given today: its specification and the code that it would run.

The same functions make the specifications of the workflow's jobs, so that what is found to
differ here is what would run again.
"""

from collections.abc import Callable
from typing import Any

from kd.audit.chain import Artifact
from kd.audit.places import CHART, model_of, run_at, split_evaluation
from kd.errors import ExperimentError, KdError, LossError
from kd.experiment import fetching, stages
from kd.experiment.base import Strict
from kd.experiment.logits import DEFAULT
from kd.experiment.schema import Experiment
from kd.provenance.code import code_digest
from kd.training.code import distillation_modules

_CODE = {
    "data": ("kd.data.sources",),
    "pretrain": ("kd.models.stage",),
    "fetch": ("kd.hub.models",),
    "answer": ("kd.teacher.answers",),
    "extract": ("kd.teacher.extraction",),
    "predict": ("kd.evaluation.predict",),
    "score": ("kd.evaluation.score",),
    "table": ("kd.tables.assembly",),
    "chart": ("kd.report.chart",),
}


def code_now(artifact: Artifact) -> str | None:
    """Digest of the code that would make `artifact` again; None where it cannot be told."""
    try:
        loss = artifact.spec["method"]["loss"] if artifact.stage == "distill" else None
    except (KeyError, TypeError):
        return None
    return stage_code(artifact.stage, loss)


def stage_code(stage: str, loss: str | None = None) -> str | None:
    """Digest of a stage's code now; of distillations, with the `loss` that they name."""
    try:
        modules = distillation_modules(str(loss)) if stage == "distill" else _CODE[stage]
    except (KeyError, LossError):
        return None
    return code_digest(*modules)


def spec_now(experiment: Experiment, artifact: Artifact) -> dict[str, Any]:
    """The specification that `experiment` gives the stage of `artifact` now.

    Raises:
        ExperimentError: the experiment declares nothing like it.
    """
    make = _SPECS.get(artifact.stage)
    try:
        if make is None:
            raise KeyError(artifact.stage)
        spec = make(experiment, artifact.folder, artifact.name)
    except (LookupError, ValueError, KdError) as error:
        raise ExperimentError(
            f"experiment '{experiment.name}' declares nothing like {artifact.key} ({error})."
        ) from None
    return spec.model_dump(mode="json")


def _data(experiment: Experiment, folder: str, _: str) -> Strict:
    return stages.data_spec(experiment, folder.split("/")[1])


def _pretrain(experiment: Experiment, folder: str, _: str) -> Strict:
    return stages.pretrain_spec(experiment, folder.split("/")[1])


def _fetch(experiment: Experiment, folder: str, _: str) -> Strict:
    return fetching.fetch_spec(experiment, folder.split("/")[1])


def _answer(experiment: Experiment, folder: str, _: str) -> Strict:
    _, teacher, dataset = folder.split("/")
    return stages.answer_spec(experiment, teacher, dataset)


def _extract(experiment: Experiment, folder: str, _: str) -> Strict:
    _, teacher, _, *named = folder.split("/")  # a variant with a name lies one folder deeper
    (variant,) = named or [DEFAULT]
    return stages.extract_spec(experiment, variant, teacher)


def _distill(experiment: Experiment, folder: str, _: str) -> Strict:
    run = run_at(folder)
    if run is None:
        raise ValueError("no place of a run")
    return stages.distill_spec(experiment, run)


def _predict(experiment: Experiment, folder: str, _: str) -> Strict:
    subject, dataset = split_evaluation(folder)
    run, name = run_at(subject), model_of(subject)
    if run is not None:
        return stages.predict_spec(experiment, dataset, made_of=run.student)
    if name is None:
        raise ValueError("no place of an evaluation")
    return stages.predict_spec(experiment, dataset, name)


def _score(experiment: Experiment, folder: str, _: str) -> Strict:
    return stages.score_spec(experiment)


def _table(experiment: Experiment, _: str, name: str) -> Strict:
    return stages.table_spec(experiment, name)


def _chart(experiment: Experiment, _: str, name: str) -> Strict:
    return stages.chart_spec(experiment, name.removesuffix(CHART))


_SPECS: dict[str, Callable[[Experiment, str, str], Strict]] = {
    "data": _data,
    "pretrain": _pretrain,
    "fetch": _fetch,
    "answer": _answer,
    "extract": _extract,
    "distill": _distill,
    "predict": _predict,
    "score": _score,
    "table": _table,
    "chart": _chart,
}
