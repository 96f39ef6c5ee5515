"""Recorded against today: the fields of a specification, and the code of a stage."""

from collections.abc import Mapping
from typing import Any

from kd.audit.chain import Artifact
from kd.audit.expected import code_now, spec_now
from kd.errors import KdError
from kd.experiment.schema import Experiment

# What completeness (C) and validity (F) judge, and currency therefore leaves alone: which cells
# a table has, and which seed a run was given.
CELL_FIELDS = {"table": ("rows", "methods", "seeds", "columns"), "distill": ("seed",)}

ABSENT = "(not recorded)"


def flatten(value: Any, prefix: str = "") -> dict[str, Any]:
    """Nested mappings as dotted keys."""
    if not isinstance(value, Mapping) or not value:
        return {prefix: value}
    found: dict[str, Any] = {}
    for key, item in value.items():
        found |= flatten(item, f"{prefix}.{key}" if prefix else str(key))
    return found


def fields_that_differ(
    old: Mapping[str, Any], new: Mapping[str, Any]
) -> dict[str, tuple[Any, Any]]:
    """Dotted keys whose values differ, with both; `ABSENT` stands for a key that is not there."""
    left, right = flatten(old), flatten(new)
    keys = [*left, *(key for key in right if key not in left)]
    pairs = {key: (left.get(key, ABSENT), right.get(key, ABSENT)) for key in keys}
    return {key: pair for key, pair in pairs.items() if pair[0] != pair[1]}


def spec_differences(
    experiment: Experiment, artifact: Artifact, *, all_fields: bool = False
) -> dict[str, tuple[Any, Any]] | None:
    """Fields of an artifact's specification that the experiment now gives another value.

    None where the experiment declares nothing like it. Without `all_fields`, fields that other
    checks judge are left out.
    """
    if not artifact.content:
        return None
    try:
        now = spec_now(experiment, artifact)
    except KdError:
        return None
    found = fields_that_differ(artifact.spec, now)
    skipped = () if all_fields else CELL_FIELDS.get(artifact.stage, ())
    return {key: pair for key, pair in found.items() if key.split(".")[0] not in skipped}


def code_difference(artifact: Artifact) -> tuple[str, str, str] | None:
    """What code differs (in words), the recorded digest and today's; None where none does."""
    if not artifact.content:
        return None
    recorded, now = str(artifact.hashed.get("code")), code_now(artifact)
    if now is None or now == recorded:
        return None
    loss = artifact.spec.get("method", {}).get("loss") if artifact.stage == "distill" else None
    what = f"stage '{artifact.stage}'" + (f" with loss '{loss}'" if loss else "")
    return what, recorded, now
