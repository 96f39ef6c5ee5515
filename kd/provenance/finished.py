"""Finished files, read back: only as the stage that wrote them left them."""

from pathlib import Path
from typing import Any

from kd.errors import ArtifactError
from kd.provenance.manifest import path_digest, read_manifest


def check_finished(path: Path, name: str) -> dict[str, Any]:
    """Check a file or folder against the manifest `<name>.manifest.json` beside it.

    Returns:
        The manifest.

    Raises:
        ArtifactError: it is missing, was altered, or has no intact manifest that lists it.
    """
    mend = f"Delete it and run `snakemake {path}`."
    if not path.exists():
        raise ArtifactError(f"{path}: missing. Run `snakemake {path}`.")
    beside = path.with_name(f"{name}.manifest.json")
    if not beside.is_file():
        raise ArtifactError(f"{path}: no manifest beside it ({beside.name}). {mend}")
    manifest = read_manifest(beside)
    hashed = manifest["hashed"]
    listed = hashed.get("outputs", {}).get(path.name)
    if listed is None:
        raise ArtifactError(f"{path}: {beside.name} does not list it. {mend}")
    if listed != path_digest(path):
        raise ArtifactError(f"{path}: changed since stage '{hashed['stage']}' wrote it. {mend}")
    return manifest
