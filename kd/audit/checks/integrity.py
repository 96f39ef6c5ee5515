"""A. Integrity: every file is what its manifest says, and every manifest rests on the others."""

from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import chain as joined
from pathlib import Path

from kd.audit.chain import Artifact, Source
from kd.audit.damage import describe_damage
from kd.audit.findings import Finding
from kd.audit.notes import INTEGRITY, Voice, counted, short
from kd.audit.outside import find_outside
from kd.audit.places import writer_of
from kd.audit.recomputation import recomputed
from kd.audit.scope import Scope
from kd.provenance.canonical import digest

CLOCK_TOLERANCE = 1.0  # seconds; times are recorded to the millisecond
EXPECT_AT_LEAST = 12  # hexadecimal digits of an identity that was kept elsewhere


def check(scope: Scope) -> list[Finding]:
    """Manifests, outputs, inputs, numbers made again, order in time, an identity kept elsewhere."""
    voice = Voice(INTEGRITY, scope)
    rules = (_manifests, _outputs, _inputs, recomputed, _times, _expected)
    return list(joined.from_iterable(rule(voice) for rule in rules))


def _manifests(voice: Voice) -> Iterator[Finding]:
    artifacts = voice.scope.artifacts
    bad = [artifact for artifact in artifacts if artifact.problem]
    for artifact in bad:
        yield voice.about("fail", "manifest", artifact, f"{artifact.file.name}: {artifact.problem}")
    linked = [artifact for artifact in artifacts if artifact.file.is_symlink()]
    for artifact in linked:
        yield voice.about(
            "fail", "manifest", artifact, f"{artifact.file.name} is a symbolic link, no file"
        )
    if not bad and not linked:
        count = counted(len(artifacts), "manifest")
        yield voice.passed("manifest", f"{count}, each with the identity of its own content")


def _outputs(voice: Voice) -> Iterator[Finding]:
    whole = 0
    for artifact in voice.scope.artifacts:
        for name, recorded in sorted(artifact.outputs.items()):
            problem = _output_problem(voice.scope, artifact, name, recorded)
            if problem:
                yield voice.about("fail", "outputs", artifact, problem, output=name)
            else:
                whole += 1
    if whole:
        yield voice.passed(
            "outputs", f"{counted(whole, 'output')} with the bytes that were written"
        )


def _output_problem(scope: Scope, artifact: Artifact, name: str, recorded: str) -> str | None:
    path = scope.results / artifact.output_path(name)
    # What was fetched lies in the hub's cache, and is hashed through its links.
    fetched = writer_of(artifact.output_path(name)) == (artifact.folder, "fetch")
    link = _first_link(path)
    if link and not (fetched and artifact.stage == "fetch"):
        return f"{link} is a symbolic link in place of a file: its bytes can change unseen"
    now = scope.chain.digest_of(path)
    if now is None:
        return f"{name} is missing, although stage '{artifact.stage}' wrote it"
    if now == recorded:
        return None
    detail = describe_damage(path)
    return (
        f"{name} was changed since stage '{artifact.stage}' wrote it "
        f"({detail or f'SHA-256 {short(now)}, recorded {short(recorded)}'})"
    )


def _first_link(path: Path) -> str | None:
    """The name of `path`, or of a file in it, that is a symbolic link."""
    if path.is_symlink():
        return path.name
    links = (file for file in sorted(path.rglob("*")) if file.is_symlink())
    found = next(links, None) if path.is_dir() else None
    return None if found is None else f"{path.name}/{found.relative_to(path).as_posix()}"


def _inputs(voice: Voice) -> Iterator[Finding]:
    sound = outside = 0
    for artifact in voice.scope.artifacts:
        for source in voice.scope.chain.sources(artifact):
            if source.writer is None:
                outside += 1
                yield from _outside(voice, artifact, source)
            else:
                found = _link(voice, artifact, source)
                yield from found
                sound += not found
    if sound:
        count = counted(sound, "input")
        yield voice.passed("inputs", f"{count} with the identity of what made them")
    if outside:
        count = counted(outside, "input")
        yield voice.passed("outside", f"{count} from outside the chain, known by SHA-256")


def _link(voice: Voice, artifact: Artifact, source: Source) -> list[Finding]:
    """What is wrong with an input that another stage wrote."""
    assert source.writer is not None
    writer = voice.scope.chain.find(source.writer)
    made = writer.outputs.get(source.path.rpartition("/")[2])
    if writer.problem and not writer.content:
        problem = f"its {source.role} cannot be traced: {source.writer} has no readable manifest"
    elif writer.identity != source.identity:
        problem = (
            f"its {source.role} is not the {source.path} that lies there: it was made from "
            f"identity {short(source.identity)}, there is {short(writer.identity)}"
        )
    elif made != source.sha256:
        problem = f"its {source.role} is not what {source.writer} says it wrote"
    else:
        return []
    return [voice.about("fail", "inputs", artifact, problem, role=source.role, writer=writer.key)]


def _outside(voice: Voice, artifact: Artifact, source: Source) -> Iterator[Finding]:
    path = find_outside(voice.scope, source.path)
    now = None if path is None else voice.scope.chain.digest_of(path)
    name = Path(source.path).name
    if now is None:
        yield voice.about(
            "not applicable",
            "outside",
            artifact,
            f"its {source.role} '{name}' lies outside the results and is not here; its SHA-256 "
            f"was {short(source.sha256)}",
            then="",
        )
    elif now != source.sha256:
        yield voice.about(
            "fail",
            "outside",
            artifact,
            f"its {source.role} '{name}' was changed since: SHA-256 {short(now)}, recorded "
            f"{short(source.sha256)}",
        )


def _times(voice: Voice) -> Iterator[Finding]:
    wrong = 0
    for artifact in voice.scope.artifacts:
        started = _started(artifact)
        if started is None:
            continue
        for problem in _time_problems(voice, artifact, started):
            wrong += 1
            yield voice.about("warn", "order in time", artifact, problem)
    if not wrong:
        yield voice.passed("order in time", "nothing is older than what it was made from")


def _time_problems(voice: Voice, artifact: Artifact, started: float) -> Iterator[str]:
    if started > datetime.now(UTC).timestamp() + CLOCK_TOLERANCE:
        yield f"it says it started in the future, at {artifact.context['started']}"
    for parent in voice.scope.chain.parents(artifact):
        before = _started(parent)
        ended = None if before is None else before + parent.seconds
        if ended is not None and started < ended - CLOCK_TOLERANCE:
            hosts = {str(found.context.get("host")) for found in (artifact, parent)}
            where = "on one host" if len(hosts) == 1 else "on two hosts: compare their clocks"
            early = f"{ended - started:.0f} s"
            yield f"it started {early} before its input {parent.key} was done, {where}"


def _started(artifact: Artifact) -> float | None:
    try:
        return datetime.fromisoformat(artifact.context["started"]).timestamp()
    except (KeyError, TypeError, ValueError):
        return None


def _expected(voice: Voice) -> Iterator[Finding]:
    expected = voice.scope.settings.expect
    identity = identity_of(voice.scope)
    if expected is None:
        yield voice.not_applicable(
            "expected identity",
            f"no identity was given to compare with; today's is {identity}",
            then=f"kd audit … --expect {identity}",
        )
    elif len(expected) >= EXPECT_AT_LEAST and identity.startswith(expected.lower()):
        yield voice.passed("expected identity", f"the identity is {short(identity)}, as expected")
    else:
        yield voice.say(
            "fail",
            "expected identity",
            voice.scope.target.name,
            f"the identity is {short(identity)}, not {short(expected)}: something that it rests on "
            "was replaced, manifests and all, or made anew",
            then=voice.make_all(),
        )


def identity_of(scope: Scope) -> str:
    """The one identity that pins the whole target: of its table, its run, or of all tables."""
    ends = [view.artifact for view in scope.tables] or scope.sinks
    identities = [end.identity or "" for end in ends]
    return identities[0] if len(identities) == 1 else digest(sorted(identities))
