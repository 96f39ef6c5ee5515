"""A distilled student as a folder that the hub would take: weights, tokenizer, model card.

Nothing is uploaded. The weights are the recorded bytes; a card written by
`kd.exports.model_card` lies beside them.
"""

import shutil
from pathlib import Path

from kd.audit.chain import SUFFIX, Artifact
from kd.audit.scope import Scope, Settings, open_scope
from kd.audit.target import run_target
from kd.errors import ArtifactError
from kd.exports.model_card import render_card
from kd.exports.portable import portable_manifest
from kd.exports.subject import ExportError
from kd.provenance.files import atomic_directory

MANIFEST = f"distill{SUFFIX}"


def write_model_folder(folder: Path, out: Path, *, licence: str, local_names: bool) -> list[str]:
    """Export the run in `folder` to `out`, which must not exist; returns the files' names.

    Args:
        folder: a run, `results/<experiment>/runs/…/s<seed>`.
        out: the new folder.
        licence: the hub's name of the student's licence; empty if it is not stated.
        local_names: leave hosts and paths in the copied manifest.

    Raises:
        ExportError: `out` exists, or the run's weights are no safetensors.
        ArtifactError: there is no such run, or its files are not what its manifests say.
    """
    if out.exists():
        raise ExportError(f"{out}: exists already. Name another --out, or remove it.")
    scope = open_scope(run_target(folder), Settings())
    run = scope.chain.artifact(scope.target.name, "distill")
    source = _verified(scope, run)
    card = render_card(scope, run, licence)
    manifest = portable_manifest(scope, run, local_names=local_names)
    with atomic_directory(out) as staging:
        for file in sorted(source.iterdir()):
            if not file.name.startswith("."):
                shutil.copy(file, staging)
        (staging / "README.md").write_text(card, encoding="utf-8")
        (staging / MANIFEST).write_text(manifest, encoding="utf-8")
    return sorted(file.name for file in out.iterdir())


def _verified(scope: Scope, run: Artifact) -> Path:
    """The model's folder, if it and the scores on the card are what was recorded."""
    if not run.content:
        raise ArtifactError(f"{run.folder}: no distillation was finished here ({run.problem}).")
    for artifact in (run, *scope.of_stage("predict"), *scope.of_stage("score")):
        if artifact.problem:
            raise ArtifactError(f"{artifact.key}: {artifact.problem}.")
        for name, recorded in artifact.outputs.items():
            path = scope.results / artifact.output_path(name)
            if scope.chain.digest_of(path) != recorded:
                raise ArtifactError(
                    f"{path}: changed since stage '{artifact.stage}' wrote it. Re-run that stage."
                )
    source = scope.results / run.folder / "model"
    if not any(source.glob("*.safetensors")):
        raise ExportError(f"{source}: no safetensors in it, and other weights are not exported.")
    return source
