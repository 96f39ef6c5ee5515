"""Is a finished table what its experiment file asks for today?"""

from collections.abc import Iterator
from pathlib import Path

from kd.audit.chain import Artifact, Chain
from kd.audit.differences import spec_differences
from kd.experiment.schema import Experiment

# `--config seeds=N` changes the seeds of a run; claims are compared one by one; a title is words.
_NEUTRAL = {"seeds", "seed", "claims", "title"}


def changed_parts(experiment: Experiment, table: str, results: Path) -> Iterator[str]:
    """What stages of a table were given otherwise than the experiment says today, in words.

    Manifests alone are read. Each stage is named once, with the first of its jobs that differs.
    """
    chain = Chain(results)
    stages: set[str] = set()
    for artifact in chain.closure([chain.artifact("tables", table)]):
        if artifact.content and artifact.stage not in stages:
            keys = _changed_keys(experiment, artifact)
            if keys:
                stages.add(artifact.stage)
                yield f"stage '{artifact.stage}' ({', '.join(keys)}; first {artifact.key})"


def _changed_keys(experiment: Experiment, artifact: Artifact) -> list[str]:
    found = spec_differences(experiment, artifact, all_fields=True)
    if found is None:
        return ["no longer declared"]
    return sorted(key for key in found if key.split(".")[0] not in _NEUTRAL)
