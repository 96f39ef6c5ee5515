"""Making artifacts again in a scratch folder, by the `kd` commands and the recorded parameters."""

import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from kd.audit.chain import SUFFIX, Artifact, Chain
from kd.audit.outside import find_outside
from kd.audit.scope import Scope
from kd.errors import ArtifactError, KdError
from kd.provenance.canonical import canonical_json


class RepeatError(KdError):
    """A stage could not be run again."""


@dataclass(frozen=True)
class Scratch:
    """A folder laid out like the results, for what is made again; the rest is read in place."""

    scope: Scope
    root: Path
    again: frozenset[str]  # keys of the artifacts that are made again

    def place(self, path: str) -> Path:
        """Where to read `path` (below the results folder) from: made again, or as it was."""
        writer = self.scope.chain.writer(path)
        fresh = writer is not None and writer.key in self.again
        return ((self.root if fresh else self.scope.results) / path).resolve()

    def source(self, artifact: Artifact, role: str) -> Path:
        """Where an artifact's input lies."""
        for source in self.scope.chain.sources(artifact):
            if source.role == role and source.writer is not None:
                return self.place(source.path)
            if source.role == role:
                found = find_outside(self.scope, source.path)
                if found is not None:
                    return found.resolve()
        raise RepeatError(
            f"{artifact.key}: its input '{role}' is not here, so it cannot be repeated."
        )

    def output(self, artifact: Artifact, name: str) -> str:
        """Where an artifact's output is written."""
        return str((self.root / artifact.folder / name).resolve())

    def has(self, artifact: Artifact, role: str) -> bool:
        """Whether a stage read the input `role`."""
        return role in artifact.hashed.get("inputs", {})


def _data(scratch: Scratch, artifact: Artifact) -> list[str]:
    argv = [str(word) for word in artifact.context.get("argv", [])]
    recorded = argv[argv.index("--root") + 1] if "--root" in argv[:-1] else "."
    root = find_outside(scratch.scope, recorded) or Path(recorded)
    return ["--root", str(root.resolve()), "--out", scratch.output(artifact, "")]


def _pretrain(scratch: Scratch, artifact: Artifact) -> list[str]:
    first = next(iter(artifact.hashed["inputs"]))
    folder = scratch.source(artifact, first).parents[1]
    return ["--data", str(folder), "--out", scratch.output(artifact, "")]


def _fetch(scratch: Scratch, artifact: Artifact) -> list[str]:
    return ["--out", scratch.output(artifact, "")]


def _answer(scratch: Scratch, artifact: Artifact) -> list[str]:
    return [
        *_model_and_data(scratch, artifact, "train"),
        "--out",
        scratch.output(artifact, "answers.parquet"),
    ]


def _extract(scratch: Scratch, artifact: Artifact) -> list[str]:
    roles = {role: str(scratch.source(artifact, role)) for role in ("model", "answers")}
    out = ["--out", scratch.output(artifact, "logits")]
    return ["--model", roles["model"], "--answers", roles["answers"], *out]


def _distill(scratch: Scratch, artifact: Artifact) -> list[str]:
    words = ["--data", str(scratch.source(artifact, "train").parent)]
    for role in ("student", "answers", "logits", "teacher"):
        if scratch.has(artifact, role):
            words += [f"--{role}", str(scratch.source(artifact, role))]
    words += ["--out", scratch.output(artifact, "")]
    return [*words, "--checkpoints", str((scratch.root / "checkpoints").resolve())]


def _predict(scratch: Scratch, artifact: Artifact) -> list[str]:
    adapted = scratch.has(artifact, "base")
    return [
        *_model_and_data(scratch, artifact, "test"),
        *(["--base", str(scratch.source(artifact, "base"))] if adapted else []),
        "--out",
        scratch.output(artifact, "predictions.parquet"),
    ]


def _model_and_data(scratch: Scratch, artifact: Artifact, split: str) -> list[str]:
    model, rows = (scratch.source(artifact, role) for role in ("model", split))
    return ["--model", str(model), "--data", str(rows.parent)]


def _score(scratch: Scratch, artifact: Artifact) -> list[str]:
    predictions = str(scratch.source(artifact, "predictions"))
    return ["--predictions", predictions, "--out", scratch.output(artifact, "scores.json")]


_OPTIONS: dict[str, Callable[[Scratch, Artifact], list[str]]] = {
    "data": _data,
    "pretrain": _pretrain,
    "fetch": _fetch,
    "answer": _answer,
    "extract": _extract,
    "distill": _distill,
    "predict": _predict,
    "score": _score,
}


def command_of(scratch: Scratch, artifact: Artifact) -> list[str]:
    """The `kd` command that makes `artifact` again in the scratch folder.

    Raises:
        RepeatError: no command makes its stage, or an input is not here.
    """
    options = _OPTIONS.get(artifact.stage)
    if options is None:
        raise RepeatError(f"{artifact.key}: no command repeats stage '{artifact.stage}'.")
    spec = canonical_json(artifact.spec)
    return [artifact.stage, "--spec", spec, *options(scratch, artifact)]


def run_again(scratch: Scratch, artifacts: Sequence[Artifact]) -> list[Artifact]:
    """Make `artifacts` (in the order of the chain) again; returns what was made.

    Raises:
        RepeatError: a command failed.
    """
    for artifact in artifacts:
        (scratch.root / artifact.folder).mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "kd.cli", *command_of(scratch, artifact)]
        done = subprocess.run(
            command, env=_environment(artifact), capture_output=True, text=True, check=False
        )
        if done.returncode != 0:
            lines = (done.stderr or done.stdout).strip().splitlines()
            raise RepeatError(f"{artifact.key}: {lines[-1] if lines else 'failed without a word'}")
    made = Chain(scratch.root)
    found = [made.artifact(artifact.folder, artifact.name) for artifact in artifacts]
    for artifact in found:
        if artifact.problem:
            raise ArtifactError(f"{artifact.key}{SUFFIX}: {artifact.problem}.")
    return found


def _environment(artifact: Artifact) -> dict[str, str]:
    """This process's environment, with the recorded threads and device, and offline."""
    numerics = artifact.numerics
    chosen = {"OMP_NUM_THREADS": str(numerics.get("threads") or 1), "HF_HUB_OFFLINE": "1"}
    if numerics.get("device") == "cpu":
        chosen["CUDA_VISIBLE_DEVICES"] = ""
    return os.environ | chosen
