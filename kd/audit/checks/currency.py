"""B. Currency: the experiment and the code, as they are now, would make the same again."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain as joined

from kd.audit.chain import Artifact
from kd.audit.differences import code_difference, spec_differences
from kd.audit.expected import code_now
from kd.audit.findings import Finding
from kd.audit.notes import CURRENCY, Voice, counted, short, some
from kd.audit.scope import Scope
from kd.audit.snakemake_view import workflow_findings


def check(scope: Scope) -> list[Finding]:
    """Specifications, code, and what Snakemake itself would do."""
    voice = Voice(CURRENCY, scope)
    rules = (_specifications, _code, workflow_findings)
    return list(joined.from_iterable(rule(voice) for rule in rules))


@dataclass(frozen=True)
class _Change:
    """One cause of staleness, whatever the number of artifacts that it touches."""

    stage: str
    field: str
    recorded: str
    now: str


def _specifications(voice: Voice) -> Iterator[Finding]:
    scope = voice.scope
    if scope.experiment is None:
        yield voice.not_applicable(
            "specification",
            f"the experiment as it is now is not known: {scope.no_experiment}",
            then="kd audit … --experiment FILE",
        )
        return
    changes: dict[_Change, list[Artifact]] = {}
    undeclared: list[str] = []
    for artifact in scope.artifacts:
        found = spec_differences(scope.experiment, artifact)
        if found is None:
            undeclared.append(artifact.key)
            continue
        for name, (recorded, now) in found.items():
            change = _Change(artifact.stage, name, short(recorded), short(now))
            changes.setdefault(change, []).append(artifact)
    for change, artifacts in changes.items():
        yield voice.say(
            "fail",
            "specification",
            _subject(artifacts),
            f"'{change.field}' of stage '{change.stage}' was {change.recorded} and is {change.now} "
            f"now: {_reach(scope, artifacts)}",
            artifacts=artifacts,
            then=voice.make_all(),
            numbers={"field": change.field, "recorded": change.recorded, "now": change.now},
        )
    compared = len(scope.artifacts) - len(undeclared)
    if scope.target.kind == "run" and undeclared:  # elsewhere completeness (C) says so
        yield voice.say(
            "warn",
            "specification",
            some(undeclared),
            f"'{scope.experiment.name}' declares nothing like it any more",
        )
    if not changes and compared:
        yield voice.passed(
            "specification",
            f"{counted(compared, 'specification')} equal to what "
            f"'{scope.experiment.name}' says now",
        )


def _code(voice: Voice) -> Iterator[Finding]:
    stale: dict[tuple[str, str, str, str], list[Artifact]] = {}
    compared, unknown = 0, []
    for artifact in voice.scope.artifacts:
        if artifact.content and code_now(artifact) is None:
            unknown.append(artifact)
            continue
        found = code_difference(artifact)
        compared += bool(artifact.content)
        if found is not None:
            what, recorded, now = found
            stale.setdefault((artifact.stage, what, recorded, now), []).append(artifact)
    for (_, what, recorded, now), artifacts in stale.items():
        lost = any(artifact.context.get("dirty") for artifact in artifacts)
        yield voice.say(
            "fail",
            "code",
            _subject(artifacts),
            f"the code of {what} was changed (digest {short(recorded)}, now {short(now)}): "
            f"{_reach(voice.scope, artifacts)}"
            + (", and no commit holds the old code, as the tree was dirty" if lost else ""),
            artifacts=artifacts,
            then=voice.make_all(),
        )
    if unknown:
        yield voice.say(
            "warn",
            "code",
            _subject(unknown),
            "the code that made it is not here any more, so that it cannot be compared",
            artifacts=unknown,
        )
    if compared and not stale:
        yield voice.passed("code", f"{counted(compared, 'artifact')} made by the code of today")


def _subject(artifacts: list[Artifact]) -> str:
    return artifacts[0].key if len(artifacts) == 1 else some([one.key for one in artifacts])


def _reach(scope: Scope, artifacts: list[Artifact]) -> str:
    """How many artifacts are stale for one cause, and how many were made from them."""
    keys = {artifact.key for artifact in artifacts}
    after = [one for one in scope.artifacts if one.key not in keys and keys & scope.ancestors(one)]
    own = f"{counted(len(keys), 'artifact')} {'is' if len(keys) == 1 else 'are'} stale"
    return own + (
        f", with {len(after)} made from {'it' if len(keys) == 1 else 'them'}" if after else ""
    )
