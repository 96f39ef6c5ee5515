"""How much work a stage's job is, in units that its time is proportional to.

A unit is a row that is read once: trained on, answered or scored. Rows of one experiment are of
one length, roughly; what a unit costs is measured, by model and method (`kd.plan.history`).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

Splits = Mapping[str, int]  # rows of each split
VALIDATION = 0.4  # of a training row: no backward pass, no optimiser


@dataclass(frozen=True)
class Work:
    """A job's work.

    Attributes:
        stage: name of the stage.
        units: rows that are read, counted as often as they are.
        traits: what sets the cost of a unit, the most telling first.
    """

    stage: str
    units: float
    traits: tuple[str, ...] = ()


@dataclass(frozen=True)
class World:
    """What there is in an experiment: kinds of its models, and rows of its datasets."""

    kinds: Mapping[str, str]
    splits: Mapping[str, Splits]


def work_of(stage: str, spec: Mapping[str, Any], place: str, world: World) -> Work:
    """The work of a job.

    Args:
        stage: name of the stage.
        spec: its specification.
        place: a file that it writes, below the experiment's folder.
        world: of the experiment.
    """
    model, dataset = subject_of(place)
    kind = (world.kinds[model],) if model in world.kinds else ()
    splits = world.splits.get(dataset, {})
    learned = splits.get("train", 0) + splits.get("validation", 0)
    if stage == "data":
        return Work(stage, sum(splits.values()))
    if stage == "pretrain":
        recipe = spec["model"]["pretraining"]
        return Work(stage, recipe["steps"] * recipe["batch_size"], (model_kind(spec["model"]),))
    if stage in ("answer", "extract"):
        return Work(stage, learned, kind)
    if stage == "distill":
        return _distillation(spec, kind, splits)
    if stage in ("predict", "score"):
        tested = splits.get("test", 0)
        return Work(_scoring(spec), tested) if stage == "score" else Work(stage, tested, kind)
    return Work(stage, 1)


def _distillation(spec: Mapping[str, Any], kind: tuple[str, ...], splits: Splits) -> Work:
    training, method = spec["training"], spec["method"]
    trained = splits.get("train", 0) * spec["fraction"] / 100 * training["epochs"]
    trained /= training.get("replicas", 1)
    validated = splits.get("validation", 0) * training["validations"]
    how = "/".join(str(method.get(key)) for key in ("loss", "alignment", "responses"))
    return Work("distill", trained + VALIDATION * validated, (*kind, how))


def _scoring(spec: Mapping[str, Any]) -> str:
    """Scores with BERTScore are other work: what takes no encoder tells nothing of them."""
    encoder = spec.get("evaluation", {}).get("bertscore")
    return f"score with {encoder['model']}" if encoder else "score"


def subject_of(place: str) -> tuple[str, str]:
    """Model and dataset of a path below an experiment's folder (see `kd.experiment.layout`)."""
    parts = PurePath(place).parts
    tested = parts[parts.index("eval") + 1] if "eval" in parts else None
    match parts:
        case ("data", dataset, *_):
            return "", dataset
        case ("models" | "hub", model, *_):
            return model, ""
        case ("teachers", teacher, dataset, *_):
            return teacher, tested or dataset
        case ("native", dataset, student, *_):
            return student, tested or dataset
        case ("runs", dataset, _, student, *_):
            return student, tested or dataset
    return "", ""


def model_kind(model: Mapping[str, Any]) -> str:
    """What a unit's cost depends on of a model's declaration."""
    if model["source"] != "micro":
        return str(model.get("repo") or model.get("path"))
    return f"{model['architecture']}/{model['size']}/{model['tokenizer']['vocabulary']}"
