"""Why a target would be made again: recorded against today, field by field.

Only what the workflow looks at counts: parameters, code, inputs and missing files. Versions of
packages and the machine do not make anything run again; the audit compares those.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from kd.audit.chain import SUFFIX, Artifact, Chain
from kd.audit.differences import code_difference, spec_differences
from kd.audit.notes import short
from kd.audit.scope import Scope, Settings, open_scope
from kd.audit.target import TABLE_FILES, Target, guess_target, run_target, table_target
from kd.errors import ArtifactError
from kd.experiment.expansion import table_scores


@dataclass(frozen=True)
class Reason:
    """One difference: what, its recorded value, and today's."""

    what: str
    recorded: str
    now: str


@dataclass(frozen=True)
class Explained:
    """An artifact that would be made again: for reasons of its own, or for its inputs' sake."""

    artifact: Artifact
    reasons: list[Reason]
    inputs: list[str] = field(default_factory=list)  # keys of inputs that would be made again

    @property
    def own(self) -> bool:
        """Whether it would be made again even if all its inputs stayed as they are."""
        return bool(self.reasons)


def explain(text: str, settings: Settings) -> tuple[list[Explained], Scope]:
    """What would be made again for a target, what is read before what is made of it.

    Args:
        text: a table, an artifact's file or folder, a run's folder or an experiment.
        settings: the experiment and its overrides.

    Raises:
        ArtifactError: nothing of the target was ever made.
    """
    scope = open_scope(_target(text), settings)
    again: dict[str, Explained] = {}
    for artifact in _wanted(scope, text):
        reasons = list(_reasons(scope, artifact))
        inputs = [parent.key for parent in scope.chain.parents(artifact) if parent.key in again]
        if reasons or inputs:
            again[artifact.key] = Explained(artifact, reasons, inputs)
    return list(again.values()), scope


def _target(text: str) -> Target:
    path = Path(text)
    if path.suffix in TABLE_FILES and path.parent.name in ("tables", "results"):
        return table_target(path)
    if not path.exists() and path.parent.is_dir() and path.parent != Path("."):
        raise ArtifactError(f"{text}: was never made. `snakemake -n {text}` shows what it takes.")
    return run_target(path.parent) if _is_output(path) else guess_target(text)


def _is_output(path: Path) -> bool:
    """Whether `path` is a file, or a folder without manifests beside one: what a stage wrote."""
    beside = any(path.parent.glob(f"*{SUFFIX}"))
    return path.is_file() or (path.is_dir() and beside and not any(path.rglob(f"*{SUFFIX}")))


def _wanted(scope: Scope, text: str) -> list[Artifact]:
    """The artifacts behind the target; for a single file, those behind that file alone."""
    path = Path(text)
    if scope.target.kind == "table":
        return [artifact for artifact in scope.artifacts if artifact.stage != "chart"]
    if scope.target.kind != "run" or not _is_output(path):
        return scope.artifacts
    inside = path.resolve().relative_to(scope.results.resolve()).as_posix()
    writer = scope.chain.writer(inside)
    return scope.chain.closure([writer]) if writer else scope.artifacts


def _reasons(scope: Scope, artifact: Artifact) -> Iterator[Reason]:
    if artifact.problem and not artifact.content:
        yield Reason("manifest", "expected", artifact.problem)
        return
    yield from _outputs(scope, artifact)
    if scope.experiment is not None:
        found = spec_differences(scope.experiment, artifact, all_fields=True) or {}
        for name, (recorded, now) in found.items():
            yield Reason(f"spec.{name}", short(recorded), short(now))
    code = code_difference(artifact)
    if code is not None:
        what, recorded, now = code
        yield Reason(f"code of {what}", short(recorded), short(now))
    yield from _inputs(scope.chain, artifact)
    if artifact.stage == "table":
        yield from _new_scores(scope, artifact)


def _outputs(scope: Scope, artifact: Artifact) -> Iterator[Reason]:
    for name, recorded in sorted(artifact.outputs.items()):
        now = scope.chain.digest_of(scope.results / artifact.output_path(name))
        if now != recorded:
            yield Reason(
                f"output {name}", short(recorded), "missing" if now is None else short(now)
            )


def _inputs(chain: Chain, artifact: Artifact) -> Iterator[Reason]:
    for source in chain.sources(artifact):
        writer = chain.find(source.writer) if source.writer else None
        if writer is not None and writer.content and writer.identity != source.identity:
            yield Reason(f"input {source.role}", short(source.identity), short(writer.identity))


def _new_scores(scope: Scope, artifact: Artifact) -> Iterator[Reason]:
    """Scores that the experiment wants in the table now and that it was made without."""
    experiment = scope.experiment
    if experiment is None or artifact.name not in experiment.tables:
        return
    inputs = artifact.hashed.get("inputs", {})
    for path in table_scores(experiment, artifact.name):
        if path not in inputs:
            there = (scope.results / path).is_file()
            yield Reason(f"input {path}", "none", "there" if there else "to be made")
