"""Two runs side by side: what differs in their manifests, what matters most first."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kd.audit.chain import SUFFIX, Artifact, Chain
from kd.audit.differences import fields_that_differ
from kd.audit.notes import short
from kd.audit.target import TABLE_FILES
from kd.errors import ArtifactError

# A difference further up explains those below it. Data first: other rows, other question.
KINDS = ("rows", "parameters", "code", "versions and device", "inputs", "outputs", "notes")
_ROWS = ("train", "validation", "test")


@dataclass(frozen=True)
class Difference:
    """One field of one artifact with both values; `kind` is one of `KINDS`."""

    kind: str
    artifact: str
    field: str
    first: str
    second: str


def compare_runs(first: Path, second: Path) -> list[Difference]:
    """Differences between the manifests of two runs, tables or artifacts, worst first.

    Raises:
        ArtifactError: a path holds no manifest, or the two have no stage in common.
    """
    left, right = _artifacts(first), _artifacts(second)
    both = [name for name in left if name in right]
    if not both:
        raise ArtifactError(f"{first} and {second} have no stage in common to compare.")
    found = [
        difference for name in both for difference in _differences(name, left[name], right[name])
    ]
    for name in [*left, *right]:
        if name not in both:
            there, absent = (("there", "none"), ("none", "there"))[name not in left]
            found.append(Difference("outputs", name, "manifest", there, absent))
    return sorted(found, key=lambda one: KINDS.index(one.kind))


def _artifacts(path: Path) -> dict[str, Artifact]:
    """The artifacts in a folder and below, or of one file, by their place in it."""
    if path.suffix in TABLE_FILES and path.with_suffix(SUFFIX).is_file():
        files = [path.with_suffix(SUFFIX)]
    elif path.name.endswith(SUFFIX):
        files = [path]
    else:
        files = sorted(path.rglob(f"*{SUFFIX}"))
    if not files:
        raise ArtifactError(f"{path}: no manifest here. Give a run's folder, or a table's csv.")
    root = path if path.is_dir() else path.parent
    found = {}
    for file in files:
        artifact = Chain(root).artifact(
            file.parent.relative_to(root).as_posix(), file.name.removesuffix(SUFFIX)
        )
        if not artifact.content:
            raise ArtifactError(f"{file}: {artifact.problem}.")
        found[artifact.key.removeprefix("./")] = artifact
    return found


def _differences(name: str, left: Artifact, right: Artifact) -> Iterator[Difference]:
    parts: Sequence[tuple[str, Any, Any]] = (
        ("parameters", left.spec, right.spec),
        ("code", {"code": left.hashed.get("code")}, {"code": right.hashed.get("code")}),
        ("versions and device", left.numerics, right.numerics),
        ("inputs", _digests(left), _digests(right)),
        ("outputs", left.outputs, right.outputs),
        ("notes", left.notes, right.notes),
    )
    for kind, old, new in parts:
        for field, (was, now) in fields_that_differ(old, new).items():
            rows = kind == "inputs" and field in _ROWS
            yield Difference("rows" if rows else kind, name, field, short(was), short(now))


def _digests(artifact: Artifact) -> dict[str, Any]:
    """SHA-256 of the inputs by role: other bytes are what matters, not who made them."""
    inputs = artifact.hashed.get("inputs", {})
    return {role: entry.get("sha256") for role, entry in inputs.items()}
