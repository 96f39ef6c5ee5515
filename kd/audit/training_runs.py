"""What training left behind: seeds that matter, weights that are numbers, curves that go down."""

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from kd.audit.chain import Artifact
from kd.audit.findings import Finding
from kd.audit.notes import Voice, counted, some
from kd.audit.places import run_at
from kd.audit.weights import DamagedWeightsError, damaged_tensors


def seeds(voice: Voice) -> Iterator[Finding]:
    """Whether every run has the seed of its place, and different runs different weights."""
    runs = voice.scope.of_stage("distill")
    wrong = [artifact for artifact in runs if not _has_its_seed(artifact)]
    for artifact in wrong:
        run = run_at(artifact.folder)
        yield voice.about(
            "fail",
            "seeds",
            artifact,
            f"it was trained with seed {artifact.spec.get('seed')}, but counts as seed "
            f"{run.seed if run else '?'}: one seed was used twice",
        )
    same = list(_identical_weights(voice, runs))
    yield from same
    if runs and not wrong and not same:
        yield voice.passed(
            "seeds", f"{counted(len(runs), 'student')}, each with weights of its own"
        )


def _has_its_seed(artifact: Artifact) -> bool:
    run = run_at(artifact.folder)
    return run is None or artifact.spec.get("seed") == run.seed


def _identical_weights(voice: Voice, runs: list[Artifact]) -> Iterator[Finding]:
    """Students whose weights are the same bytes, or those that they started from."""
    groups: dict[tuple[str, ...], list[Artifact]] = {}
    for artifact in runs:
        digests = _weight_digests(voice, voice.scope.results / artifact.folder / "model")
        if digests:
            groups.setdefault(digests, []).append(artifact)
    for same in groups.values():
        if len(same) > 1:
            yield voice.say(
                "fail",
                "seeds",
                some([artifact.key for artifact in same]),
                f"{len(same)} students have identical weights: {_why_identical(same)}",
                artifacts=same,
                then=voice.remake(same[-1]),
            )
    for base in (*voice.scope.of_stage("pretrain"), *voice.scope.of_stage("fetch")):
        digests = _weight_digests(voice, voice.scope.results / base.folder / "model")
        for artifact in groups.get(digests, []):
            problem = f"its weights are those of {base.folder}: training changed nothing"
            yield voice.about("fail", "seeds", artifact, problem)


def _why_identical(same: list[Artifact]) -> str:
    methods = {json.dumps(artifact.spec.get("method"), sort_keys=True) for artifact in same}
    if len(methods) > 1:
        return "the loss made no difference"
    return "the seed was not used"


def _weight_digests(voice: Voice, folder: Path) -> tuple[str, ...]:
    digests = (voice.scope.chain.digest_of(path) for path in sorted(folder.glob("*.safetensors")))
    return tuple(digest for digest in digests if digest)


def weights(voice: Voice) -> Iterator[Finding]:
    """Whether all weights, and all stored teacher probabilities, are numbers."""
    files = 0
    bad = False
    for artifact in voice.scope.artifacts:
        for name in artifact.outputs:
            folder = voice.scope.results / artifact.folder / name
            if not folder.is_dir():
                continue
            for path in sorted(folder.glob("*.safetensors")):
                files += 1
                problem = _not_numbers(path, infinite=artifact.stage != "extract")
                if problem:
                    bad = True
                    yield voice.about("fail", "weights", artifact, problem)
    if files and not bad:
        yield voice.passed("weights", f"no NaN and no infinity in {counted(files, 'file')}")


def _not_numbers(path: Path, *, infinite: bool) -> str | None:
    try:
        names = damaged_tensors(path, infinite=infinite)
    except (DamagedWeightsError, OSError) as error:
        return f"{path.name} cannot be read: {error}"
    return f"{path.name} holds values that are no numbers, in {some(names)}" if names else None


def curves(voice: Voice) -> Iterator[Finding]:
    """Whether every training curve is finite, whole, and goes down."""
    sound = 0
    for artifact in voice.scope.of_stage("distill"):
        records = _read_curve(voice.scope.results / artifact.folder / "train.jsonl")
        if records is None:
            continue  # integrity says why
        problem = _curve_problem(artifact, records)
        if problem:
            yield voice.about("fail", "curves", artifact, problem)
            continue
        losses = [record["validation_loss"] for record in records if "validation_loss" in record]
        if len(losses) > 1 and min(losses[1:]) >= losses[0]:
            yield voice.about(
                "warn",
                "curves",
                artifact,
                f"its validation loss never fell below its first value, {losses[0]:.4g}",
                "",
            )
        else:
            sound += 1
    if sound:
        yield voice.passed("curves", f"{counted(sound, 'curve')}, finite, whole and going down")


def _read_curve(path: Path) -> list[dict[str, Any]] | None:
    try:
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    except (OSError, ValueError):
        return None


def _curve_problem(artifact: Artifact, records: list[dict[str, Any]]) -> str | None:
    for record in records:
        for name, value in record.items():
            if not isinstance(value, int | float) or not math.isfinite(value):
                return f"its {name} is {value} at step {record.get('step')}"
    steps = [record["step"] for record in records if "loss" in record]
    wanted = artifact.notes.get("steps", len(steps))
    if steps != list(range(1, wanted + 1)):
        return f"its curve has {len(steps)} of {wanted} steps"
    return None
