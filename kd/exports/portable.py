"""Manifests that can be given away: no folder of this machine, no host.

The hashed part stays as it is, or its identity would break; what lies beside it is rewritten.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from kd.audit.chain import Artifact, Source
from kd.audit.scope import Scope
from kd.errors import ArtifactError

# An absolute path inside a text, a home folder's, or a file's address; no part of a URL.
_ABSOLUTE = re.compile(r"(?:file://|~|(?<![\w.:/~)\]}]))/[^\s\"',;:|]+")
# A parameter that is such a path as a whole; prompts and titles may hold slashes.
_PATH = re.compile(r"(?:file://|~/|/|[A-Za-z]:\\)\S+")
# Beside the hashed part: what tells of a machine rather than of a result.
_LOCAL = ("argv", "platform")


def portable_manifest(scope: Scope, artifact: Artifact, *, local_names: bool) -> str:
    """An artifact's manifest as text, without paths and hosts unless `local_names`.

    Raises:
        ArtifactError: the hashed part itself names a folder of this machine.
    """
    content = artifact.content
    if not local_names:
        refuse_local(artifact)
        kept = {key: value for key, value in artifact.context.items() if key not in _LOCAL}
        context = kept | {
            "host": _pseudonym(scope, artifact),
            "paths": _relative_paths(scope, artifact),
        }
        content = content | {"context": context, "notes": without_paths(artifact.notes)}
    return json.dumps(content, indent=1, sort_keys=True, ensure_ascii=False) + "\n"


def _pseudonym(scope: Scope, artifact: Artifact) -> str:
    """A host's number among those in scope: which artifacts shared one still shows."""
    hosts = sorted({str(one.context.get("host")) for one in scope.artifacts})
    return f"host-{1 + hosts.index(str(artifact.context.get('host')))}"


def refuse_local(artifact: Artifact) -> None:
    """Stop where what is hashed names a folder of this machine.

    Raises:
        ArtifactError: it does.
    """
    for text in _strings(artifact.spec):
        if _PATH.fullmatch(text):
            raise ArtifactError(
                f"{artifact.key}: its parameters name {text}, a place on this machine, and "
                "are part of its identity. Name it by a relative path or by the hub's name in the "
                "experiment, or export it all the same with --local-names."
            )


def _relative_paths(scope: Scope, artifact: Artifact) -> dict[str, str]:
    """Where each input lay, below the results or by its name alone."""
    name = scope.results.name
    return {
        source.role: f"results/{name}/{source.path}"
        if source.writer is not None
        else outside_place(source)
        for source in scope.chain.sources(artifact)
    }


def outside_place(source: Source) -> str:
    """Where an input from outside the results lies in a crate that packs it."""
    return f"inputs/{source.sha256[:12]}/{Path(source.path).name}"


def relative(path: str) -> str:
    """A path as it is if it is relative and stays below its folder; else its last part."""
    given = Path(path)
    return given.name if given.is_absolute() or ".." in given.parts else given.as_posix()


def without_paths(value: Any) -> Any:
    """`value` with every absolute path in its texts cut to its last part."""
    if isinstance(value, str):
        return _ABSOLUTE.sub(lambda found: found.group().rstrip("/").rpartition("/")[2], value)
    if isinstance(value, dict):
        return {key: without_paths(item) for key, item in value.items()}
    return [without_paths(item) for item in value] if isinstance(value, list) else value


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from _strings(key)
            yield from _strings(item)
    elif isinstance(value, list):
        for item in value:
            yield from _strings(item)
