"""A finished table's json: read only where it is what stage `table` wrote."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kd.errors import ArtifactError
from kd.provenance.canonical import file_digest
from kd.provenance.finished import check_finished
from kd.tables.as_json import SCHEMA


@dataclass(frozen=True)
class Finished:
    """A table's json.

    Attributes:
        content: what it holds.
        manifest: the manifest of the stage that wrote it.
        results: the results folder of its experiment.
    """

    content: dict[str, Any]
    manifest: dict[str, Any]
    results: Path


def read_finished(path: Path) -> Finished:
    """Read a table's json and check it against its manifest.

    `results/<table>.json`, the selected experiment's copy, has no manifest beside it: it must
    equal `results/<experiment>/tables/<table>.json`.

    Raises:
        ArtifactError: it is missing, no table of this version, or was altered.
    """
    content = _read(path)
    original = path
    if not path.with_name(f"{path.stem}.manifest.json").is_file():
        folder = path.parent / str(content["experiment"]) / "tables"
        original = folder / path.name if folder.is_dir() else path
    manifest = check_finished(original, path.stem)
    if original != path and file_digest(original) != file_digest(path):
        raise ArtifactError(
            f"{path}: differs from {original}, whose copy it is. Delete it and run "
            f"`snakemake {path}`."
        )
    return Finished(content, manifest, original.parent.parent)


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError:
        raise ArtifactError(f"{path}: no such table. Make it with `snakemake {path}`.") from None
    except (ValueError, RecursionError):
        raise ArtifactError(f"{path}: not a table's json. Make the table again.") from None
    if not isinstance(content, dict) or "table" not in content or "experiment" not in content:
        raise ArtifactError(f"{path}: not a table's json. Make the table again.")
    if content.get("schema_version") != SCHEMA:
        raise ArtifactError(
            f"{path}: schema {content.get('schema_version', 1)}, expected {SCHEMA}: it was made "
            "by another version. Make the table again."
        )
    return content
