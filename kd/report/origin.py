"""From which experiment and code results were made: digests that a page can carry.

A page says them in a comment; compared with today's, they tell whether the page is stale.
"""

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from kd.audit.chain import Artifact
from kd.audit.expected import stage_code
from kd.experiment.schema import Experiment
from kd.provenance.canonical import digest

_COMMENT = re.compile(r"<!-- made from (\{.*\}) -->")
# Keys that change no number. How many seeds ran, the identities of the tables tell.
_NEUTRAL = {"description", "deviations", "seeds"}


@dataclass(frozen=True)
class Origin:
    """What results were made from.

    Attributes:
        name: the experiment's name.
        experiment: digest of all keys of the experiment that can change a number.
        code: digest of code by stage, for distillations by `distill <loss>`; several digests
            under one name become one digest of them all.
        tables: identities of the tables by name.
    """

    name: str
    experiment: str
    code: dict[str, str]
    tables: dict[str, str]

    def comment(self) -> str:
        """The origin as a comment of a page."""
        return f"<!-- made from {json.dumps(self.__dict__, sort_keys=True)} -->"


def read_origin(text: str) -> Origin | None:
    """The origin that a page's text carries; None where it carries none that can be read."""
    found = _COMMENT.search(text)
    if found is None:
        return None
    try:
        origin = Origin(**json.loads(found[1]))
        whole = isinstance(origin.name, str) and isinstance(origin.experiment, str)
        mappings = isinstance(origin.code, dict) and isinstance(origin.tables, dict)
    except (ValueError, TypeError):
        return None
    return origin if whole and mappings else None


def experiment_digest(experiment: Experiment) -> str:
    """Digest of the keys that can change a number."""
    return digest(experiment.model_dump(mode="json", exclude=_NEUTRAL))


def recorded_code(artifacts: Iterable[Artifact]) -> dict[str, str]:
    """Digests of code that manifests record, by stage and loss."""
    found: dict[str, set[str]] = {}
    for artifact in artifacts:
        if artifact.content:
            found.setdefault(_kind(artifact), set()).add(str(artifact.hashed.get("code")))
    return {kind: _one(digests) for kind, digests in sorted(found.items())}


def _kind(artifact: Artifact) -> str:
    loss = artifact.spec.get("method", {}).get("loss") if artifact.stage == "distill" else None
    return f"{artifact.stage} {loss}" if loss else artifact.stage


def _one(digests: set[str]) -> str:
    return min(digests) if len(digests) == 1 else digest(sorted(digests))


def stale_parts(origin: Origin, experiment: Experiment) -> Iterator[str]:
    """What is no longer as it was when the results were made, in words."""
    if origin.experiment != experiment_digest(experiment):
        yield f"experiment '{experiment.name}'"
    for kind, recorded in origin.code.items():
        stage, _, loss = kind.partition(" ")
        if stage_code(stage, loss) != recorded:
            yield f"code of stage '{stage}'" + (f" with loss '{loss}'" if loss else "")
