"""An in-toto Statement v1 with a SLSA Provenance v1 predicate: how a table came to be.

The shapes are those of https://in-toto.io/Statement/v1 and https://slsa.dev/provenance/v1.
The statement is not signed: a signature says who vouches for it, which no manifest knows.
"""

from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import kd
from kd.audit.chain import Artifact, Source
from kd.audit.scope import Scope
from kd.errors import ArtifactError
from kd.exports.parameters import recorded_parameters
from kd.exports.portable import refuse_local, relative
from kd.exports.subject import commits, span

STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE = "https://slsa.dev/provenance/v1"
# Names, not addresses: docs/exports.md says what they stand for.
BUILD_TYPE = "urn:kd-harness:build:table:v1"
BUILDER = "urn:kd-harness:builder:local"
# A folder's digest is no file's: SHA-256 over the sorted (name, SHA-256) list of its files.
FOLDER_DIGEST = "kdFolderSha256"


def statement(scope: Scope, *, local_names: bool = False) -> dict[str, Any]:
    """The provenance of one table.

    Raises:
        ArtifactError: the scope is not one table, or parameters name a folder of this machine.
    """
    if len(scope.tables) != 1:
        raise ArtifactError(f"{scope.target.name}: a provenance statement is about one table.")
    table = scope.tables[0].artifact
    if not local_names:
        for artifact in scope.artifacts:
            refuse_local(artifact)
    return {
        "_type": STATEMENT_TYPE,
        "subject": [
            {"name": name, "digest": {"sha256": digest}} for name, digest in table.outputs.items()
        ],
        "predicateType": PREDICATE_TYPE,
        "predicate": {
            "buildDefinition": {
                "buildType": BUILD_TYPE,
                "externalParameters": recorded_parameters(scope) | {"table": table.name},
                "internalParameters": {"numerics": _numerics(scope)},
                "resolvedDependencies": list(_dependencies(scope, table)),
            },
            "runDetails": {
                "builder": {"id": BUILDER, "version": _versions(table)},
                "metadata": _metadata(scope, table),
                "byproducts": list(_byproducts(scope, table)),
            },
        },
    }


def _versions(table: Artifact) -> dict[str, str]:
    packages = table.numerics.get("packages", {})
    known = {name: str(version) for name, version in packages.items() if version}
    return {"kd": kd.__version__, "python": str(table.numerics.get("python"))} | known


def _numerics(scope: Scope) -> dict[str, Any]:
    """Device, threads and instruction set, for each stage: they decide on equal bytes."""
    return {artifact.stage: artifact.numerics for artifact in scope.artifacts}


def _metadata(scope: Scope, table: Artifact) -> dict[str, str]:
    begin, end = span(scope.artifacts)
    times = {"startedOn": begin, "finishedOn": end}
    return {"invocationId": f"sha256:{table.identity}"} | {
        name: timestamp(time) for name, time in times.items() if time is not None
    }


def timestamp(time: datetime) -> str:
    """RFC 3339 in UTC, to the second, as in-toto's Timestamp wants it."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ")


def _dependencies(scope: Scope, table: Artifact) -> Iterator[dict[str, Any]]:
    """Everything the table rests on: commit, code, each input of each stage."""
    for commit in commits(scope):
        yield {"name": "commit", "digest": {"gitCommit": commit}}
    yield from _code(scope)
    seen = set()
    for artifact in scope.artifacts:
        for source in scope.chain.sources(artifact):
            entry = _input(scope, source)
            key = (entry["name"], source.sha256)
            if key not in seen:
                seen.add(key)
                yield entry


def _code(scope: Scope) -> Iterator[dict[str, Any]]:
    """The digest of each stage's code: several where stages run different losses."""
    made: dict[tuple[str, str], int] = {}
    for artifact in scope.artifacts:
        key = (artifact.stage, str(artifact.hashed.get("code")))
        made[key] = made.get(key, 0) + 1
    for (stage, code), count in made.items():
        yield {
            "name": f"code of stage {stage}",
            "digest": {"kdSyntaxSha256": code},
            "annotations": {"artifacts": count},
        }


def _input(scope: Scope, source: Source) -> dict[str, Any]:
    if source.writer is None:
        found = {"role": source.role, "from": "outside the chain"}
        return {
            "name": relative(source.path),
            "digest": {"sha256": source.sha256},
            "annotations": found,
        }
    stage = scope.chain.find(source.writer).stage
    kind = FOLDER_DIGEST if (scope.results / source.path).is_dir() else "sha256"
    return {
        "name": source.path,
        "digest": {kind: source.sha256},
        "annotations": {"identity": source.identity, "stage": stage},
    }


def _byproducts(scope: Scope, table: Artifact) -> Iterator[dict[str, Any]]:
    """What was made on the way and read by nothing else: training curves, for instance."""
    read = {source.path for artifact in scope.artifacts for source in scope.chain.sources(artifact)}
    for artifact in scope.artifacts:
        if artifact.key == table.key:
            continue
        for name, digest in sorted(artifact.outputs.items()):
            path = artifact.output_path(name)
            if path not in read and not Path(scope.results, path).is_dir():
                yield {"name": path, "digest": {"sha256": digest}}
