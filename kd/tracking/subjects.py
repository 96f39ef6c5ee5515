"""What is tracked: finished distillations and evaluations, read from the results folder.

A `Subject` becomes one MLflow run. A distillation carries its curve and the test scores of
its student; an evaluation of a model that was not distilled (a teacher, a native student)
is a subject of its own. Nothing here knows MLflow.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from kd.errors import ArtifactError
from kd.provenance.canonical import canonical_json, file_digest
from kd.provenance.manifest import read_manifest

Manifest = dict[str, Any]

# Names of the folders in a subject's path, below its first.
AXES = {
    "runs": ("dataset", "teacher", "student", "method", "fraction", "seed"),
    "native": ("dataset", "student"),
    "teachers": ("teacher", "dataset"),
}
CURVE = "train.jsonl"  # of a distillation
KINDS = {"runs": "distillation", "native": "native", "teachers": "teacher"}


@dataclass(frozen=True)
class Metric:
    """One value, at an optimiser step."""

    name: str
    value: float
    step: int = 0


@dataclass(frozen=True)
class Evaluation:
    """The scores of a model on one dataset's test split."""

    dataset: str
    folder: Path
    predict: Manifest
    score: Manifest

    @property
    def identity(self) -> str:
        """Identity of the scores; it covers the predictions and the model behind them."""
        return str(self.score["identity"])

    @property
    def ended(self) -> int:
        """When it was scored, in milliseconds since 1970."""
        return _span(self.score)[1]

    def params(self) -> dict[str, str]:
        """How the model was prompted and scored, below `test.<dataset>.`."""
        spec = self.predict["hashed"]["spec"] | self.score["hashed"]["spec"]
        return {f"test.{self.dataset}.{key}": value for key, value in flatten(spec)}

    def metrics(self) -> list[Metric]:
        """Each available metric's mean in percent, as `test/<dataset>/<metric>`."""
        scores = json.loads((self.folder / "scores.json").read_text(encoding="utf-8"))
        return [
            Metric(f"test/{self.dataset}/{name}", float(found["mean"]))
            for name, found in sorted(scores["metrics"].items())
            if "mean" in found
        ]


@dataclass(frozen=True)
class Subject:
    """One MLflow run in the making. `path` is below the results folder and is its key."""

    path: str
    kind: str
    axes: Mapping[str, str]
    identity: str
    origin: Manifest
    folder: Path
    evaluations: tuple[Evaluation, ...]

    @property
    def name(self) -> str:
        """A name to tell curves by: `uld opt squad/llama f100 s0`, or `native opt squad`.

        What differs most comes first, as MLflow cuts names off at some 25 characters.
        """
        axes = self.axes
        if self.kind == "distillation":
            return (
                f"{axes['method']} {axes['student']} {axes['dataset']}/{axes['teacher']} "
                f"f{axes['fraction']} s{axes['seed']}"
            )
        model = axes.get("student") or axes["teacher"]
        tested = self.evaluations[0].dataset
        elsewhere = "" if tested == axes["dataset"] else f" on {tested}"
        return f"{self.kind} {model} {axes['dataset']}{elsewhere}"

    @property
    def started(self) -> int:
        """Start of the stage that made the subject, in milliseconds since 1970."""
        return _span(self.origin)[0]

    @property
    def ended(self) -> int:
        """Its end, in milliseconds since 1970."""
        return _span(self.origin)[1]

    @property
    def rows(self) -> tuple[str, str]:
        """The split that the subject is made from, and the SHA-256 of its rows."""
        split = "train" if self.kind == "distillation" else "test"
        return split, str(self.origin["hashed"]["inputs"][split]["sha256"])

    def params(self) -> dict[str, str]:
        """Axes and the specification of the distillation, keys dotted."""
        if self.kind != "distillation":
            return dict(self.axes)
        return dict(self.axes) | dict(flatten(self.origin["hashed"]["spec"]))

    def metrics(self) -> list[Metric]:
        """What the making took, and for a distillation its curve and selected checkpoint."""
        context = self.origin["context"]
        # MLflow sorts charts by prefix; these shall follow test/, train/ and validation/.
        work = [Metric(f"work/{name}", context[name]) for name in ("seconds", "peak_memory_mib")]
        if self.kind != "distillation":
            return work
        selected = self.origin["notes"].get("selected") or {}
        chosen = [
            Metric(f"validation/selected_{name.removeprefix('validation_')}", value)
            for name, value in sorted(selected.items())
        ]
        return [*work, *chosen, *read_curve(self.folder / CURVE)]


def read_subjects(results: Path, scores: Sequence[str]) -> list[Subject]:
    """The subjects of score files, given by their paths below `results`.

    A distillation comes with all its finished evaluations, asked for or not, so that it is
    the same whichever table it is tracked for.

    Raises:
        ArtifactError: a file is missing, or is not what its manifest says.
    """
    wanted: dict[str, list[str]] = {}
    for path in scores:
        subject, datasets = _split(path)
        key = subject if subject.startswith("runs/") else f"{subject}/eval/{datasets[0]}"
        wanted.setdefault(key, []).extend(datasets)
    return [_read_subject(results, key, datasets) for key, datasets in sorted(wanted.items())]


def scores_of_table(table: Path) -> list[str]:
    """The score files that a table's cells rest on, from its `<table>.json`.

    Raises:
        ArtifactError: no such file, or it is no table.
    """
    try:
        rows = json.loads(table.read_text(encoding="utf-8"))["rows"]
        cells = [cell for row in rows for cell in row["cells"].values()]
        return sorted({path for cell in cells for path in cell["scores"]})
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ArtifactError(f"{table}: no readable table ({error}). Run `kd table`.") from None


def read_curve(path: Path) -> list[Metric]:
    """Values per step of a training curve, as `train/<name>` and `validation/<name>`."""
    curve = []
    for line in path.read_text(encoding="utf-8").splitlines():
        record = json.loads(line)
        step = record.pop("step")
        curve += [Metric(_curve_name(name), value, step) for name, value in record.items()]
    return curve


def flatten(value: Any, prefix: str = "") -> Iterator[tuple[str, str]]:
    """Nested mappings as dotted keys; other values as text, lists as JSON."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from flatten(item, f"{prefix}.{key}" if prefix else str(key))
    else:
        yield prefix, value if isinstance(value, str) else canonical_json(value)


def _span(manifest: Manifest) -> tuple[int, int]:
    """Start and end of a stage, in milliseconds since 1970."""
    context = manifest["context"]
    started = datetime.fromisoformat(context["started"]).timestamp()
    return int(started * 1000), int((started + context["seconds"]) * 1000)


def _curve_name(name: str) -> str:
    kind, _, rest = name.partition("_")
    return f"validation/{rest}" if kind == "validation" else f"train/{name}"


def _split(path: str) -> tuple[str, list[str]]:
    """Subject and test dataset of `<subject>/eval/<test_dataset>/scores.json`.

    A run's training curve, `<subject>/train.jsonl`, belongs to no test dataset.
    """
    parts = path.split("/")
    axes = AXES.get(parts[0], ())
    if parts[0] == "runs" and len(parts) == len(axes) + 2 and parts[-1] == CURVE:
        return "/".join(parts[:-1]), []
    if not axes or len(parts) != len(axes) + 4 or (parts[-3], parts[-1]) != ("eval", "scores.json"):
        raise ArtifactError(
            f"{path}: not the path of scores. Give <subject>/eval/<dataset>/scores.json, relative "
            "to the results folder, with a subject below runs/, native/ or teachers/."
        )
    return "/".join(parts[:-3]), [parts[-2]]


def _read_subject(results: Path, path: str, datasets: Sequence[str]) -> Subject:
    first, *coordinates = path.split("/")
    folder = results / path
    if first != "runs":
        found = _read_evaluation(folder)
        axes = dict(zip(AXES[first], coordinates, strict=False)) | {"test_dataset": found.dataset}
        return Subject(path, KINDS[first], axes, found.identity, found.predict, folder, (found,))
    axes = _run_axes(coordinates)
    origin = _verified(folder, "distill", CURVE)
    evaluations = tuple(_evaluations(folder, origin["identity"], datasets))
    return Subject(path, KINDS[first], axes, origin["identity"], origin, folder, evaluations)


def _run_axes(coordinates: Sequence[str]) -> dict[str, str]:
    axes = dict(zip(AXES["runs"], coordinates, strict=True))
    axes["fraction"] = axes["fraction"].removeprefix("f")
    axes["seed"] = axes["seed"].removeprefix("s")
    return axes


def _evaluations(folder: Path, model: str, wanted: Sequence[str]) -> Iterator[Evaluation]:
    present = {path.parent.name for path in folder.glob("eval/*/scores.json")}
    for dataset in sorted(present | set(wanted)):
        try:
            found = _read_evaluation(folder / "eval" / dataset)
            if found.predict["hashed"]["inputs"]["model"]["identity"] != model:
                raise ArtifactError(
                    f"{found.folder}: evaluates an earlier student than the one in {folder}. "
                    "Predict and score again."
                )
        except ArtifactError:
            # Another table's evaluation may be under way; this table's must be finished.
            if dataset in wanted:
                raise
        else:
            yield found


def _read_evaluation(folder: Path) -> Evaluation:
    predict = _verified(folder, "predict", "predictions.parquet")
    score = _verified(folder, "score", "scores.json")
    return Evaluation(folder.name, folder, predict, score)


def _verified(folder: Path, stage: str, output: str) -> Manifest:
    """The manifest of `stage` in `folder`, if `output` is still what it lists."""
    path = folder / output
    if not path.is_file():
        raise ArtifactError(f"{path}: no such file. Run `kd {stage}` first.")
    manifest = read_manifest(folder / f"{stage}.manifest.json")
    if manifest["hashed"]["outputs"].get(output) != file_digest(path):
        raise ArtifactError(
            f"{path}: changed since stage '{stage}' wrote it. Delete it and re-run that stage."
        )
    return manifest
