"""Where artifacts lie below a results folder: who writes a path, and what each stage reads.

The layout decides, not the paths that a manifest remembers: those are not hashed, so a forger
could point them at another student. They serve only for what lies outside the results.
"""

from collections.abc import Callable, Mapping
from pathlib import PurePosixPath
from typing import Any

from kd.experiment.layout import CURVE, Run, logits_path, teacher_path
from kd.experiment.logits import DEFAULT

# Which stage writes a file or folder of this name. A table's files bear the table's own name.
_WRITERS = {
    "answers.parquet": "answer",
    "logits": "extract",
    "train.jsonl": "distill",
    "predictions.parquet": "predict",
    "scores.json": "score",
}
_MODEL_WRITERS = {"models": "pretrain", "hub": "fetch", "runs": "distill"}

# Stages in the order in which they follow each other.
STAGES = (
    "data",
    "pretrain",
    "fetch",
    "answer",
    "extract",
    "distill",
    "predict",
    "score",
    "table",
    "chart",
)

# A chart lies beside its table; its manifest bears the table's name, and this.
CHART = ".chart"

# The numbers of folders that name a subject, below its first: `runs/<dataset>/…/s<seed>`.
_DEPTHS = {"runs": 6, "native": 2, "teachers": 2}


def writer_of(path: str) -> tuple[str, str] | None:
    """Folder and name of the manifest of the stage that writes `path`, by the layout.

    None where no stage of the chain writes there.
    """
    parts = PurePosixPath(path)
    folder, first = parts.parent.as_posix(), parts.parts[0]
    if parts.name == "model" and first in _MODEL_WRITERS:
        return folder, _MODEL_WRITERS[first]
    if first == "data":
        return folder, "data"
    if first == "tables":
        return folder, parts.name.partition(".")[0]  # <table>.long.csv is one of a table's files
    stage = _WRITERS.get(parts.name)
    return None if stage is None else (folder, stage)


def split_evaluation(folder: str) -> tuple[str, str]:
    """Subject and test dataset of the folder `<subject>/eval/<dataset>`; no dataset: empty."""
    subject, _, dataset = folder.partition("/eval/")
    return subject, dataset


def run_at(folder: str) -> Run | None:
    """The distillation that lies in, or above, `folder`; None where there is none."""
    parts = split_evaluation(folder)[0].split("/")
    if parts[0] != "runs" or len(parts) != _DEPTHS["runs"] + 1:
        return None
    dataset, teacher, student, method, fraction, seed = parts[1:]
    if not (fraction[1:].isdigit() and seed[1:].isdigit()):
        return None
    return Run(dataset, teacher, student, method, int(fraction[1:]), int(seed[1:]))


def model_of(subject: str) -> str | None:
    """Name of the model that an undistilled subject evaluates: a teacher or a native student."""
    parts = subject.split("/")
    if len(parts) != _DEPTHS.get(parts[0], 0) + 1:
        return None
    return {"native": parts[-1], "teachers": parts[1]}.get(parts[0])


def _distill_input(folder: str, role: str, spec: Mapping[str, Any]) -> str | None:
    run = run_at(folder)
    if run is None:
        return None
    teacher = teacher_path(run.teacher, run.dataset)
    return {
        "student": f"models/{run.student}/model",
        "teacher": f"models/{run.teacher}/model",
        "train": f"data/{run.dataset}/train.parquet",
        "validation": f"data/{run.dataset}/validation.parquet",
        "answers": f"{teacher}/answers.parquet",
        "logits": logits_path(run.teacher, run.dataset, _variant(spec)),
    }.get(role)


def _variant(spec: Mapping[str, Any]) -> str:
    """The variant of the stored logits that a distillation names in its specification."""
    method = spec.get("method")
    named = method.get("logits") if isinstance(method, Mapping) else None
    return named if isinstance(named, str) and "/" not in named else DEFAULT


def _teacher_input(folder: str, role: str, _: Mapping[str, Any]) -> str | None:
    """Inputs of `answer` and `extract`, which lie in `teachers/<teacher>/<dataset>`, or below."""
    parts = folder.split("/")
    if len(parts) not in (3, 4):
        return None
    return {
        "model": f"models/{parts[1]}/model",
        "train": f"data/{parts[2]}/train.parquet",
        "validation": f"data/{parts[2]}/validation.parquet",
        "answers": f"{teacher_path(parts[1], parts[2])}/answers.parquet",
    }.get(role)


def _predict_input(folder: str, role: str, _: Mapping[str, Any]) -> str | None:
    subject, dataset = split_evaluation(folder)
    if role == "model":
        model = model_of(subject)
        return f"models/{model}/model" if model else f"{subject}/model"
    if role == "base":
        run = run_at(subject)
        return f"models/{run.student}/model" if run else None
    return f"data/{dataset}/{role}.parquet"


def _score_input(folder: str, role: str, _: Mapping[str, Any]) -> str | None:
    return f"{folder}/predictions.parquet" if role == "predictions" else None


def _chart_input(folder: str, role: str, _: Mapping[str, Any]) -> str | None:
    return role


def _table_input(folder: str, role: str, _: Mapping[str, Any]) -> str | None:
    return role if role.endswith(("/scores.json", f"/{CURVE}")) else None


_INPUTS: dict[str, Callable[[str, str, Mapping[str, Any]], str | None]] = {
    "answer": _teacher_input,
    "extract": _teacher_input,
    "distill": _distill_input,
    "predict": _predict_input,
    "score": _score_input,
    "table": _table_input,
    "chart": _chart_input,
}


def input_places(
    stage: str, folder: str, role: str, spec: Mapping[str, Any] | None = None
) -> tuple[str, ...]:
    """Where a stage that wrote into `folder` may have read the input `role` from.

    Of its specification only the variant of the stored logits is read.

    Nothing where the layout does not say: the input then lies outside the results.
    """
    if stage == "pretrain":  # which of the two depends on the dataset
        return f"data/{role}/pretraining.parquet", f"data/{role}/train.parquet"
    find = _INPUTS.get(stage)
    place = find(folder, role, spec or {}) if find else None
    if place is not None and place.startswith("models/"):  # trained here, or fetched
        return place, place.replace("models/", "hub/", 1)
    return () if place is None else (place,)
