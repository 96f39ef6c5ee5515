"""All that was chosen, as it was recorded: the parameters of every stage behind a result."""

from typing import Any

from kd.audit.scope import Scope
from kd.provenance.canonical import canonical_json


def recorded_parameters(scope: Scope) -> dict[str, Any]:
    """The specification of every artifact, by stage; equal ones once, with the artifacts they made.

    Complete: with the code and the inputs, these determine every output.
    """
    stages: dict[str, dict[str, dict[str, Any]]] = {}
    for artifact in scope.artifacts:
        entries = stages.setdefault(artifact.stage, {})
        entry = entries.setdefault(
            canonical_json(artifact.spec), {"specification": artifact.spec, "artifacts": []}
        )
        entry["artifacts"].append(artifact.key)
    return {
        "experiment": scope.results.name,
        "stages": {stage: list(entries.values()) for stage, entries in stages.items()},
    }
