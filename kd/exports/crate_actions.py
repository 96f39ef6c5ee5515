"""What was run, in a crate: one action a stage's run, and one for the workflow as a whole."""

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from kd.audit.chain import Artifact
from kd.audit.scope import Scope
from kd.exports.crate_workflow import step_id, tool_id
from kd.exports.subject import finished, span, started
from kd.provenance.canonical import canonical_json, digest

if TYPE_CHECKING:
    from rocrate.rocrate import ROCrate

_COMPLETED = "http://schema.org/CompletedActionStatus"
_ENGINE = "https://snakemake.github.io"
# UN/CEFACT unit codes.
_SECOND, _MEBIBYTE = "SEC", "E63"


def describe_actions(
    crate: "ROCrate",
    scope: Scope,
    tools: dict[str, Any],
    entities: dict[str, Any],
    *,
    parameters: Any,
    agent: Any,
) -> None:
    """Add an action for every artifact, the step that it belongs to, and the workflow's own."""
    by_whom = {"agent": {"@id": agent.id}} if agent else {}
    runs = [_run(crate, scope, artifact, entities, by_whom) for artifact in scope.artifacts]
    controls = [
        _control(crate, artifact, run, tools)
        for artifact, run in zip(scope.artifacts, runs, strict=True)
    ]
    whole = _whole(crate, scope, entities, parameters, by_whom)
    _engine(crate, whole, controls, by_whom)
    crate.root_dataset["mentions"] = [whole, *runs]


def _add(crate: "ROCrate", identifier: str, properties: dict[str, Any]) -> Any:
    from rocrate.model import ContextEntity

    return crate.add(ContextEntity(crate, identifier, properties=properties))


def references(found: Sequence[Any]) -> list[dict[str, str]] | dict[str, str]:
    """References to entities; RO-Crate wants a single one outside of a list."""
    ids = [{"@id": identifier} for identifier in dict.fromkeys(entity.id for entity in found)]
    return ids[0] if len(ids) == 1 else ids


def _times(begin: datetime | None, end: datetime | None) -> dict[str, str]:
    known = {"startTime": begin, "endTime": end}
    return {
        name: time.isoformat(timespec="milliseconds")
        for name, time in known.items()
        if time is not None
    }


def _run(
    crate: "ROCrate",
    scope: Scope,
    artifact: Artifact,
    entities: dict[str, Any],
    by_whom: dict[str, Any],
) -> Any:
    sources = scope.chain.sources(artifact)
    inputs = [
        entities[source.path if source.writer is not None else source.sha256] for source in sources
    ]
    results = [entities[artifact.output_path(name)] for name in sorted(artifact.outputs)]
    properties = {
        "@type": "CreateAction",
        "name": f"kd {artifact.stage}: {artifact.folder}",
        "description": f"identity {artifact.identity}",
        "instrument": {"@id": tool_id(artifact)},
        "object": references([*inputs, _specification(crate, artifact)]),
        "result": references(results),
        "actionStatus": _COMPLETED,
        "environment": references(_environment(crate, artifact)),
        "resourceUsage": references(_usage(crate, artifact)),
    }
    properties |= _times(started(artifact), finished(artifact)) | by_whom
    image = _container(crate, artifact)
    if image is not None:
        properties["containerImage"] = {"@id": image.id}
    return _add(crate, f"#run-{artifact.key}", properties)


def _specification(crate: "ROCrate", artifact: Artifact) -> Any:
    """The parameters of a run; runs with the same ones share the entity."""
    text = canonical_json(artifact.spec)
    identifier = f"#specification-{digest([artifact.stage, artifact.spec])[:16]}"
    told = {"@type": "PropertyValue", "name": f"specification of {artifact.stage}", "value": text}
    return crate.get(identifier) or _add(crate, identifier, told)


def _environment(crate: "ROCrate", artifact: Artifact) -> list[Any]:
    """Versions, device and threads, as they are part of the identity."""
    found = []
    for name, value in sorted(artifact.numerics.items()):
        identifier = f"#environment-{name}-{digest(value)[:12]}"
        text = value if isinstance(value, str) else canonical_json(value)
        told = {"@type": "PropertyValue", "name": name, "value": text}
        found.append(crate.get(identifier) or _add(crate, identifier, told))
    return found


def _usage(crate: "ROCrate", artifact: Artifact) -> list[Any]:
    measured = {
        "seconds": (artifact.seconds, _SECOND, "wall-clock time"),
        "peak_memory_mib": (artifact.context.get("peak_memory_mib"), _MEBIBYTE, "peak memory"),
    }
    return [
        _add(
            crate,
            f"#usage-{artifact.key}-{name}",
            {
                "@type": "PropertyValue",
                "name": title,
                "propertyID": f"https://schema.org/{name}",
                "value": str(value),
                "unitCode": unit,
            },
        )
        for name, (value, unit, title) in measured.items()
        if value is not None
    ]


def _container(crate: "ROCrate", artifact: Artifact) -> Any:
    image = artifact.context.get("container")
    if not image:
        return None
    identifier = f"#container-{digest(image)[:16]}"
    told = {
        "@type": "ContainerImage",
        "name": str(image),
        "additionalType": {"@id": "https://w3id.org/ro/terms/workflow-run#SIFImage"},
    }
    if str(image).startswith("sha256:"):
        told["sha256"] = str(image).removeprefix("sha256:")
    return crate.get(identifier) or _add(crate, identifier, told)


def _control(crate: "ROCrate", artifact: Artifact, run: Any, tools: dict[str, Any]) -> Any:
    """The step of the workflow as which a run was started."""
    step = tools[step_id(tool_id(artifact))]
    return _add(
        crate,
        f"#control-{artifact.key}",
        {
            "@type": "ControlAction",
            "name": f"step for {artifact.key}",
            "instrument": {"@id": step.id},
            "object": {"@id": run.id},
            "actionStatus": _COMPLETED,
        },
    )


def _whole(
    crate: "ROCrate",
    scope: Scope,
    entities: dict[str, Any],
    parameters: Any,
    by_whom: dict[str, Any],
) -> Any:
    """The workflow's run: from what came from outside to what nothing else was made from."""
    outside = {
        source.sha256: entities[source.sha256]
        for artifact in scope.artifacts
        for source in scope.chain.sources(artifact)
        if source.writer is None
    }
    ends = [
        entities[artifact.output_path(name)]
        for artifact in scope.sinks
        for name in sorted(artifact.outputs)
    ]
    properties = {
        "@type": "CreateAction",
        "name": f"run of the workflow for {scope.target.title()}",
        "description": f"{len(scope.artifacts)} runs of stages",
        "instrument": {"@id": "Snakefile"},
        "object": references([parameters, *outside.values()]),
        "result": references(ends),
        "actionStatus": _COMPLETED,
    }
    return _add(crate, "#run-workflow", properties | _times(*span(scope.artifacts)) | by_whom)


def _engine(crate: "ROCrate", whole: Any, controls: list[Any], by_whom: dict[str, Any]) -> None:
    engine = _add(
        crate,
        _ENGINE,
        {
            "@type": "SoftwareApplication",
            "name": "Snakemake",
            "url": {"@id": _ENGINE},
            "softwareVersion": "not recorded: no result depends on it",
        },
    )
    _add(
        crate,
        "#orchestration",
        {
            "@type": "OrganizeAction",
            "name": "orchestration of the steps",
            "instrument": {"@id": engine.id},
            "object": references(controls),
            "result": {"@id": whole.id},
            "actionStatus": _COMPLETED,
        }
        | by_whom,
    )
