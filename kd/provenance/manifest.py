"""One manifest per stage: what went in, what came out, and what made it.

The hashed part holds everything that must match on a repeat; the SHA-256 of its canonical
JSON is the artifact's identity. It covers the identities of the inputs, so that one table's
identity pins its whole history. Times, hosts and paths lie beside it, unhashed.
"""

import json
import resource
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from kd.errors import ArtifactError
from kd.provenance import environment
from kd.provenance.canonical import canonical_json, digest, file_digest
from kd.provenance.code import code_digest
from kd.provenance.files import write_text

SCHEMA = 1


def path_digest(path: Path) -> str:
    """SHA-256 of a file, or of a folder's sorted (relative name, SHA-256) list.

    Hidden files do not count: they are marks of tools, not part of an artifact.
    """
    if path.is_dir():
        names = sorted(file.relative_to(path) for file in path.rglob("*") if file.is_file())
        shown = [name for name in names if not any(part.startswith(".") for part in name.parts)]
        return digest([[name.as_posix(), file_digest(path / name)] for name in shown])
    return file_digest(path)


def read_manifest(path: Path) -> dict[str, Any]:
    """Read a manifest and check that its identity is the hash of its hashed part.

    Raises:
        ArtifactError: it is unreadable, of another schema, or was altered.
    """
    try:
        manifest: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        known = manifest["schema"] == SCHEMA
        intact = manifest["identity"] == digest(manifest["hashed"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ArtifactError(f"{path}: no readable manifest ({error}). Re-run its stage.") from None
    if not known:
        raise ArtifactError(f"{path}: manifest schema {manifest['schema']}, expected {SCHEMA}.")
    if not intact:
        raise ArtifactError(f"{path}: its content does not match its identity. Re-run its stage.")
    return manifest


def producer_of(path: Path) -> dict[str, Any] | None:
    """The manifest beside `path` that lists it as an output, or None for an external input."""
    for candidate in sorted(path.parent.glob("*.manifest.json")):
        manifest = read_manifest(candidate)
        if path.name in manifest["hashed"]["outputs"]:
            return manifest
    return None


def _verified_input(role: str, path: Path, external: bool) -> dict[str, Any]:
    if not path.exists():
        raise ArtifactError(f"{path}: missing, needed as {role}. Run the stage that writes it.")
    sha256 = path_digest(path)
    manifest = producer_of(path)
    if manifest is None and not external:
        raise ArtifactError(
            f"{path}: no manifest beside it says which stage wrote it, needed as {role}. "
            "Delete it and re-run its stage."
        )
    if manifest is None:
        return {"sha256": sha256, "identity": None}
    if manifest["hashed"]["outputs"][path.name] != sha256:
        raise ArtifactError(
            f"{path}: changed since stage '{manifest['hashed']['stage']}' wrote it. "
            "Delete it and re-run that stage."
        )
    return {"sha256": sha256, "identity": manifest["identity"]}


class StageRecord:
    """The manifest of a stage in the making: inputs are verified first, outputs listed last."""

    def __init__(
        self,
        stage: str,
        spec: BaseModel,
        inputs: Mapping[str, Path],
        code: tuple[str, ...],
        *,
        name: str | None = None,
        external: tuple[str, ...] = (),
        tensors: bool = True,
    ) -> None:
        """Verify `inputs` (role to path) against the manifests of the stages that wrote them.

        Args:
            stage: name of the stage.
            spec: the parameters that the stage reads.
            inputs: role to file or folder.
            code: modules whose code, with all it imports, makes the outputs.
            name: stem of the manifest's file, where a folder holds several of one stage.
            external: roles that may come from outside the chain, without a manifest.
            tensors: whether torch computes the outputs, so that its settings count.

        Raises:
            ArtifactError: an input is missing or is not what its stage wrote.
        """
        self._name, self._tensors = name or stage, tensors
        self._started, self._cpu_started = time.time(), time.process_time()
        self._inputs = inputs
        self._hashed: dict[str, Any] = {
            "stage": stage,
            "spec": spec.model_dump(mode="json"),
            "code": code_digest(*code),
            "inputs": {
                role: _verified_input(role, path, role in external)
                for role, path in sorted(inputs.items())
            },
        }

    @property
    def inputs(self) -> dict[str, dict[str, Any]]:
        """SHA-256 and producer's identity of each input, by role."""
        found: dict[str, dict[str, Any]] = self._hashed["inputs"]
        return found

    @property
    def fingerprint(self) -> str:
        """Hash of all that determines the outputs: specification, code, inputs, environment."""
        return digest(self._hashed | {"numerics": environment.numerics(tensors=self._tensors)})

    def is_done(self, *outputs: Path) -> bool:
        """Whether `outputs` lie there, made from the same, and are what their manifest says.

        So it is after another process made them, which was started before and lived on.
        """
        try:
            hashed = dict(read_manifest(self.manifest_path(outputs[0]))["hashed"])
        except ArtifactError:
            return False
        listed = hashed.pop("outputs")
        if digest(hashed) != self.fingerprint:
            return False
        return all(path.exists() and listed.get(path.name) == path_digest(path) for path in outputs)

    def manifest_path(self, output: Path) -> Path:
        """Where the manifest of `output` lies: beside it."""
        return output.parent / f"{self._name}.manifest.json"

    def write(self, *outputs: Path, notes: Mapping[str, Any] | None = None) -> None:
        """List `outputs` (all in one folder) and write the manifest beside them.

        `notes` are counts and measurements a reader wants and nothing is computed from.
        """
        hashed = self._hashed | {
            "outputs": {path.name: path_digest(path) for path in outputs},
            "numerics": environment.numerics(tensors=self._tensors),
        }
        manifest = {
            "schema": SCHEMA,
            "identity": digest(hashed),
            "hashed": hashed,
            "notes": dict(notes or {}),
            "context": environment.context()
            | {
                "paths": {role: str(path) for role, path in sorted(self._inputs.items())},
                "started": datetime.fromtimestamp(self._started, UTC).isoformat(),
                "seconds": round(time.time() - self._started, 3),
                "cpu_seconds": round(time.process_time() - self._cpu_started, 3),
                "peak_memory_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
            },
        }
        canonical_json(manifest)  # refuses NaN before anything reaches the disk
        text = json.dumps(manifest, indent=1, sort_keys=True, ensure_ascii=False) + "\n"
        write_text(self.manifest_path(outputs[0]), text)
