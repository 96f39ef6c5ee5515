"""A Workflow Run RO-Crate: results, manifests and the runs that made them, in one folder or zip.

Profiles: Process, Workflow and Provenance Run Crate 0.5 (https://w3id.org/ro/wfrun), on
RO-Crate 1.1. Files lie in the crate as they lie in a checkout, so that `kd audit` reads them.
"""

import io
import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kd.audit.chain import SUFFIX, Artifact, Source
from kd.audit.outside import find_outside
from kd.audit.scope import Scope
from kd.exports.crate_actions import describe_actions, references
from kd.exports.crate_workflow import describe_workflow
from kd.exports.parameters import recorded_parameters
from kd.exports.portable import outside_place, portable_manifest
from kd.exports.subject import ExportError, span
from kd.provenance.canonical import digest

if TYPE_CHECKING:
    from rocrate.rocrate import ROCrate

PROFILES = {
    "https://w3id.org/ro/wfrun/process/0.5": "Process Run Crate",
    "https://w3id.org/ro/wfrun/workflow/0.5": "Workflow Run Crate",
    "https://w3id.org/ro/wfrun/provenance/0.5": "Provenance Run Crate",
    "https://w3id.org/workflowhub/workflow-ro-crate/1.0": "Workflow RO-Crate",
}
# Terms of the profiles that RO-Crate 1.1 lacks, spelled out so that no second context is fetched.
_TERMS = {
    name: f"https://w3id.org/ro/terms/workflow-run#{name}"
    for name in ("ContainerImage", "containerImage", "environment", "resourceUsage", "sha256")
}
PARAMETERS = "parameters.json"
NO_LICENCE = "The licence of these results was not stated at export."

_FORMATS = {
    ".csv": "text/csv",
    ".json": "application/json",
    ".jsonl": "application/jsonl",
    ".md": "text/markdown",
    ".parquet": "application/vnd.apache.parquet",
    ".yaml": "application/yaml",
}


def write_crate(
    scope: Scope, out: Path, *, full: bool, local_names: bool, licence: str, agent: str
) -> int:
    """Write the crate to the folder `out`, or to a file if it ends in `.zip`.

    Args:
        scope: verified results.
        out: must not exist yet.
        full: pack weights, logits and outside inputs, too; else they are only described.
        local_names: leave hosts and paths in the manifests.
        licence: of the results, a URL or a sentence; empty if it is not stated.
        agent: who ran the workflow, a name or an ORCID's URL; empty if it is not stated.

    Returns:
        The number of described entities.

    Raises:
        ExportError: `out` exists, or ro-crate-py is not installed.
        ArtifactError: parameters name a folder of this machine.
    """
    if out.exists():
        raise ExportError(f"{out}: exists already. Name another --out, or remove it.")
    crate = _new_crate()
    _describe_root(crate, scope, licence)
    _add_readme(crate, scope, full=full)
    person = _agent(crate, agent)
    entities = _add_files(crate, scope, full=full, local_names=local_names)
    text = _json(recorded_parameters(scope))
    parameters = crate.add_file(
        io.StringIO(text),
        PARAMETERS,
        properties={
            "name": "recorded parameters of every stage",
            "encodingFormat": "application/json",
        },
    )
    tools = describe_workflow(crate, scope, parameters, entities)
    describe_actions(crate, scope, tools, entities, parameters=parameters, agent=person)
    if out.suffix == ".zip":
        crate.write_zip(out)
    else:
        crate.write(out)
    return len(crate.get_entities())


def _new_crate() -> "ROCrate":
    try:
        from rocrate.rocrate import ROCrate
    except ImportError:
        raise ExportError(
            "A crate is written by ro-crate-py, which is not installed: "
            "pip install -c constraints.txt -e '.[exports]'"
        ) from None
    return ROCrate(version="1.1")


def _describe_root(crate: "ROCrate", scope: Scope, licence: str) -> None:
    from rocrate.model import ContextEntity

    crate.metadata.extra_terms.update(_TERMS)
    crate.name = f"{scope.target.title()}: results and their provenance"
    crate.description = (
        f"{len(scope.artifacts)} artifacts of a knowledge-distillation experiment, each with the "
        "manifest that names its parameters, code, versions, inputs and outputs by digest."
    )
    crate.license = _licence(crate, licence)
    # When the results were made, not when they were packed: the same results, the same crate.
    crate.datePublished = span(scope.artifacts)[1] or datetime.now(UTC)
    profiles = [
        crate.add(
            ContextEntity(
                crate,
                address,
                properties={
                    "@type": "CreativeWork",
                    "name": name,
                    "version": address.rpartition("/")[2],
                },
            )
        )
        for address, name in PROFILES.items()
    ]
    crate.root_dataset["conformsTo"] = profiles
    crate.metadata["conformsTo"] = [
        {"@id": "https://w3id.org/ro/crate/1.1"},
        {"@id": "https://w3id.org/workflowhub/workflow-ro-crate/1.0"},
    ]


def _licence(crate: "ROCrate", licence: str) -> Any:
    from rocrate.model import ContextEntity

    is_address = licence.startswith("http")
    told = {"name": licence or NO_LICENCE, "description": licence or NO_LICENCE}
    entity = ContextEntity(
        crate, licence if is_address else "#licence", properties={"@type": "CreativeWork", **told}
    )
    return crate.add(entity)


def _add_readme(crate: "ROCrate", scope: Scope, *, full: bool) -> None:
    name = scope.results.name
    packed = "" if full else "\nWeights and logits are described by their digests and not packed.\n"
    text = (
        f"# {crate.name}\n\n{crate.description}\n{packed}\n"
        "`ro-crate-metadata.json` describes every file and every run. A manifest's `identity` is "
        "the SHA-256 of the canonical JSON of its `hashed` part; what lies beside that part was "
        f"rewritten for this crate.\n\n    kd audit experiment results/{name}\n"
    )
    crate.add_file(
        io.StringIO(text),
        "README.md",
        properties={
            "name": "how to read this crate",
            "encodingFormat": "text/markdown",
            "about": {"@id": "./"},
        },
    )


def _agent(crate: "ROCrate", agent: str) -> Any:
    from rocrate.model import Person

    if not agent:
        return None
    is_address = agent.startswith("http")
    identifier = agent if is_address else f"#{digest(agent)[:12]}"
    person = crate.add(Person(crate, identifier, properties={"name": agent}))
    crate.root_dataset["author"] = person
    return person


def _add_files(crate: "ROCrate", scope: Scope, *, full: bool, local_names: bool) -> dict[str, Any]:
    """All outputs, by their path below the results folder, and all manifests."""
    entities: dict[str, Any] = {}
    for artifact in scope.artifacts:
        for name, recorded in sorted(artifact.outputs.items()):
            path = artifact.output_path(name)
            entities[path] = _output(crate, scope, path, recorded, full=full)
        for source in scope.chain.sources(artifact):
            if source.writer is None and source.sha256 not in entities:
                entities[source.sha256] = _outside(crate, scope, source, full=full)
    for artifact in scope.artifacts:
        text = portable_manifest(scope, artifact, local_names=local_names)
        crate.add_file(
            io.StringIO(text),
            _place(scope, f"{artifact.key}{SUFFIX}"),
            properties={
                "name": f"manifest of {artifact.key}",
                "encodingFormat": "application/json",
                "identifier": f"sha256:{artifact.identity}",
                "about": references([entities[path] for path in _paths(artifact)]),
            },
        )
    return entities


def _paths(artifact: Artifact) -> Iterator[str]:
    return (artifact.output_path(name) for name in sorted(artifact.outputs))


def _place(scope: Scope, path: str) -> str:
    return f"results/{scope.results.name}/{path}"


def _output(crate: "ROCrate", scope: Scope, path: str, recorded: str, *, full: bool) -> Any:
    from rocrate.model import ContextEntity

    source, place = scope.results / path, _place(scope, path)
    if source.is_file():
        return crate.add_file(source, place, properties=_file(source, path, recorded))
    properties = {"name": path, "identifier": f"kd-folder-sha256:{recorded}"}
    if not full:
        told = {"@type": "CreativeWork", "description": "a folder, described and not packed"}
        return crate.add(ContextEntity(crate, f"#{place}", properties=told | properties))
    described = "weights or logits; the identifier is over the sorted names and SHA-256 of files"
    folder = crate.add_directory(
        dest_path=f"{place}/", properties=properties | {"description": described}
    )
    files = (file for file in sorted(source.rglob("*")) if file.is_file())
    for file in files:
        inside = file.relative_to(source)
        if not any(part.startswith(".") for part in inside.parts):
            part = crate.add_file(file, f"{place}/{inside.as_posix()}")
            part["name"] = f"{path}/{inside.as_posix()}"
            folder.append_to("hasPart", part)
    return folder


def _file(source: Path, path: str, recorded: str) -> dict[str, Any]:
    known = {"encodingFormat": _FORMATS[source.suffix]} if source.suffix in _FORMATS else {}
    size = str(source.stat().st_size)
    return {"name": path, "sha256": recorded, "contentSize": size} | known


def _outside(crate: "ROCrate", scope: Scope, source: Source, *, full: bool) -> Any:
    """An input from outside the results: packed if the crate is full and it is still the same."""
    from rocrate.model import ContextEntity

    name, sha256 = f"{source.role}, from outside the results", source.sha256
    found = find_outside(scope, source.path) if full else None
    if found is not None and found.is_file() and scope.chain.digest_of(found) == sha256:
        return crate.add_file(found, outside_place(source), properties=_file(found, name, sha256))
    told = {"@type": "CreativeWork", "name": name, "sha256": sha256}
    return crate.add(ContextEntity(crate, f"#outside-{sha256[:16]}", properties=told))


def _json(value: Any) -> str:
    return json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False) + "\n"
