"""The chain of manifests below a results folder, from a table back to the rows.

Reading is lenient: a missing, malformed or altered manifest is a fact to report, not an error.
Nothing is written, and every file is hashed at most once.
"""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from kd.audit.places import input_places, writer_of
from kd.errors import ArtifactError
from kd.provenance.canonical import digest
from kd.provenance.manifest import SCHEMA, path_digest

SUFFIX = ".manifest.json"

_NUMBERS = ("seconds", "peak_memory_mib")  # in a manifest's context


@dataclass(frozen=True)
class Source:
    """One recorded input: where it lies now, and the artifact that it must be part of.

    `path` is below the results folder for what the chain made (`writer` names its artifact), and
    a path as the stage was given it for what lies outside.
    """

    role: str
    path: str
    sha256: str
    identity: str | None
    writer: str | None


@dataclass
class Artifact:
    """What one stage wrote into one folder, as its manifest tells; `key` is `<folder>/<name>`."""

    folder: str
    name: str
    file: Path
    content: dict[str, Any] = field(default_factory=dict)
    problem: str | None = None

    @property
    def key(self) -> str:
        """The artifact's name in findings."""
        return f"{self.folder}/{self.name}"

    @property
    def missing(self) -> bool:
        """Whether there is no manifest at all."""
        return not self.file.is_file()

    @property
    def hashed(self) -> dict[str, Any]:
        """The part that the identity is the hash of; empty if there is none to read."""
        found: dict[str, Any] = self.content.get("hashed", {})
        return found

    @property
    def stage(self) -> str:
        """The stage's name; of an unreadable manifest the name of its file."""
        return str(self.hashed.get("stage", self.name))

    @property
    def identity(self) -> str | None:
        """The identity that the manifest states."""
        return self.content.get("identity")

    @cached_property
    def computed_identity(self) -> str:
        """The hash of the hashed part as it is now; empty where it holds NaN, which has none."""
        try:
            return digest(self.hashed)
        except ValueError:
            return ""

    @property
    def spec(self) -> dict[str, Any]:
        """The parameters that the stage read."""
        found: dict[str, Any] = self.hashed.get("spec", {})
        return found

    @property
    def outputs(self) -> dict[str, str]:
        """Name to SHA-256 of what the stage wrote."""
        found: dict[str, str] = self.hashed.get("outputs", {})
        return found

    @property
    def numerics(self) -> dict[str, Any]:
        """Versions, device and threads."""
        found: dict[str, Any] = self.hashed.get("numerics", {})
        return found

    @property
    def notes(self) -> dict[str, Any]:
        """Counts and measurements."""
        found: dict[str, Any] = self.content.get("notes", {})
        return found

    @property
    def context(self) -> dict[str, Any]:
        """Times, host, commit and paths: not hashed."""
        found: dict[str, Any] = self.content.get("context", {})
        return found

    @property
    def seconds(self) -> float:
        """How long the stage took; 0 where that is not recorded."""
        return float(self.context.get("seconds") or 0.0)

    def output_path(self, name: str) -> str:
        """Where an output lies below the results folder."""
        return f"{self.folder}/{name}"


class Chain:
    """All manifests below `results` (an experiment's folder), found through the layout."""

    def __init__(self, results: Path) -> None:
        self.results = results
        self._artifacts: dict[tuple[str, str], Artifact] = {}
        self._sources: dict[str, list[Source]] = {}
        self._digests: dict[Path, str | None] = {}

    def artifact(self, folder: str, name: str) -> Artifact:
        """The artifact whose manifest is `<folder>/<name>.manifest.json`, there or not."""
        if (folder, name) not in self._artifacts:
            file = self.results / folder / f"{name}{SUFFIX}"
            self._artifacts[folder, name] = _read(Artifact(folder, name, file))
        return self._artifacts[folder, name]

    def maker(self, path: str) -> Artifact:
        """The artifact that `path` belongs to by the layout, there or not.

        Raises:
            ArtifactError: no stage writes there.
        """
        place = writer_of(path)
        if place is None:
            raise ArtifactError(f"{path}: no stage of the chain writes there.")
        return self.artifact(*place)

    def writer(self, path: str) -> Artifact | None:
        """The artifact that `path` (below the results folder) is part of; None outside them."""
        folder, _, name = path.rpartition("/")
        for file in sorted((self.results / folder).glob(f"*{SUFFIX}")):
            found = self.artifact(folder, file.name.removesuffix(SUFFIX))
            if name in found.outputs:
                return found
        place = writer_of(path)
        return None if place is None else self.artifact(*place)

    def sources(self, artifact: Artifact) -> list[Source]:
        """The recorded inputs of an artifact, by role."""
        if artifact.key not in self._sources:
            inputs = sorted(artifact.hashed.get("inputs", {}).items())
            self._sources[artifact.key] = [self._source(artifact, *entry) for entry in inputs]
        return self._sources[artifact.key]

    def _source(self, artifact: Artifact, role: str, entry: dict[str, Any]) -> Source:
        sha256, identity = str(entry.get("sha256")), entry.get("identity")
        recorded = str(artifact.context.get("paths", {}).get(role, role))
        places = input_places(artifact.stage, artifact.folder, role, artifact.spec)
        if identity is not None and not places:
            places = tuple(self._relocated(recorded))
        writers = [(place, self.writer(place)) for place in places]
        for place, writer in writers:
            if writer and writer.outputs.get(place.rpartition("/")[2]) == sha256:
                return Source(role, place, sha256, identity, writer.key)
        if identity is None or not writers:
            return Source(role, recorded, sha256, identity, None)
        other = self._other_output(writers, sha256, identity)
        if other is not None:
            return Source(role, other[0], sha256, identity, other[1])
        place, writer = next(
            ((place, writer) for place, writer in writers if (self.results / place).exists()),
            writers[0],
        )
        return Source(role, place, sha256, identity, writer.key if writer else None)

    def _other_output(
        self, writers: list[tuple[str, Artifact | None]], sha256: str, identity: str
    ) -> tuple[str, str] | None:
        """Another output of the same artifact that was read instead, and the artifact's key."""
        for _, writer in writers:
            if writer is not None and writer.identity == identity:
                for name, digest_of_output in writer.outputs.items():
                    if digest_of_output == sha256:
                        return writer.output_path(name), writer.key
        return None

    def _relocated(self, recorded: str) -> Iterator[str]:
        """A recorded path below the results folder, wherever that lay when it was recorded."""
        parts = Path(recorded).parts
        for start in range(len(parts)):
            if (self.results / Path(*parts[start:])).exists():
                yield Path(*parts[start:]).as_posix()
                return

    def find(self, key: str) -> Artifact:
        """The artifact of a key."""
        folder, _, name = key.rpartition("/")
        return self.artifact(folder, name)

    def parents(self, artifact: Artifact) -> list[Artifact]:
        """The artifacts that this one was made from, each once."""
        keys = (source.writer for source in self.sources(artifact))
        return [self.find(key) for key in dict.fromkeys(key for key in keys if key)]

    def closure(self, ends: Iterable[Artifact]) -> list[Artifact]:
        """`ends` and all that they were made from, what was read before what was made of it."""
        done: dict[str, Artifact] = {}
        under_way: set[str] = set()

        def visit(artifact: Artifact) -> None:
            if artifact.key in done or artifact.key in under_way:
                return
            under_way.add(artifact.key)
            for parent in self.parents(artifact):
                visit(parent)
            done[artifact.key] = artifact

        for end in ends:
            visit(end)
        return list(done.values())

    def digest_of(self, path: Path) -> str | None:
        """SHA-256 of a file or folder; None where there is none."""
        if path not in self._digests:
            self._digests[path] = path_digest(path) if path.exists() else None
        return self._digests[path]


def _read(artifact: Artifact) -> Artifact:
    if artifact.missing:
        artifact.problem = "there is no manifest"
        return artifact
    try:
        content = json.loads(artifact.file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        artifact.problem = f"the manifest cannot be read ({error})"
        return artifact
    if not _well_formed(content):
        artifact.problem = "the manifest lacks a part, or a part is of another type"
        return artifact
    artifact.content = content
    if content.get("schema") != SCHEMA:
        artifact.problem = f"the manifest has schema {content.get('schema')}, expected {SCHEMA}"
    elif artifact.identity != artifact.computed_identity:
        artifact.problem = "the manifest's content does not hash to the identity that it states"
    return artifact


def _well_formed(content: Any) -> bool:
    """Whether the parts that the audit walks along have the types that it relies on."""
    if not isinstance(content, dict) or not isinstance(content.get("hashed"), dict):
        return False
    hashed, context = content["hashed"], content.get("context", {})
    parts = [hashed.get(name) for name in ("spec", "inputs", "outputs", "numerics")]
    if not all(isinstance(part, dict) for part in (*parts, context, content.get("notes", {}))):
        return False
    packages, paths = hashed["numerics"].get("packages", {}), context.get("paths", {})
    return (
        isinstance(content.get("identity"), str)
        and isinstance(hashed.get("stage"), str)
        and all(isinstance(context.get(name, 0), int | float) for name in _NUMBERS)
        and all(isinstance(entry, dict) for entry in hashed["inputs"].values())
        and all(
            isinstance(digest_of_output, str) for digest_of_output in hashed["outputs"].values()
        )
        and all(
            isinstance(names, dict) and all(isinstance(one, str | None) for one in names.values())
            for names in (packages, paths)
        )
    )
