"""D. Pinning: nothing that the numbers rest on can change under its name."""

import re
from collections.abc import Iterator, Mapping
from itertools import chain as joined
from typing import Any

from kd.audit.chain import Artifact
from kd.audit.differences import flatten
from kd.audit.findings import Finding
from kd.audit.lock import LOCK, Lock, deviations, installed_versions, read_lock
from kd.audit.notes import PINNING, Voice, counted, some
from kd.audit.scope import Scope

_COMMIT = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}$")


def check(scope: Scope) -> list[Finding]:
    """Revisions, commits, the lock of the environment, the container."""
    voice = Voice(PINNING, scope)
    rules = (_revisions, _commits, _environment, _container)
    return list(joined.from_iterable(rule(voice) for rule in rules))


def _revisions(voice: Voice) -> Iterator[Finding]:
    pinned = 0
    floating: dict[str, list[Artifact]] = {}
    for artifact in voice.scope.artifacts:
        for key, value in flatten(artifact.spec).items():
            if key.rpartition(".")[2] != "revision" or value is None:
                continue
            if _COMMIT.fullmatch(str(value)):
                pinned += 1
            else:
                floating.setdefault(f"'{key}: {value}'", []).append(artifact)
    for what, artifacts in floating.items():
        yield voice.say(
            "fail",
            "revisions",
            some([artifact.key for artifact in artifacts]),
            f"{what} floats: the name may mean something else tomorrow. Give the commit's hash",
            artifacts=artifacts,
            then=f"kd check {voice.scope.results.name}",
        )
    if not floating and pinned:
        yield voice.passed("revisions", f"{counted(pinned, 'revision')}, each a commit's hash")
    elif not floating:
        yield voice.not_applicable("revisions", "nothing in this chain comes from the hub")


def _commits(voice: Voice) -> Iterator[Finding]:
    made = [artifact for artifact in voice.scope.artifacts if artifact.content]
    dirty = [artifact for artifact in made if artifact.context.get("dirty")]
    unknown = [artifact for artifact in made if not artifact.context.get("commit")]
    if dirty:
        yield voice.say(
            "warn",
            "commit",
            some([artifact.key for artifact in dirty]),
            f"{counted(len(dirty), 'artifact')} made from a tree with uncommitted changes: no "
            "commit holds that code, its digest alone is known",
            artifacts=dirty,
            then="git status",
        )
    if unknown:
        yield voice.say(
            "warn",
            "commit",
            some([artifact.key for artifact in unknown]),
            f"{counted(len(unknown), 'artifact')} made outside of git: the digest of the code is "
            "known, no commit is",
            artifacts=unknown,
        )
    if not dirty and not unknown:
        commits = {str(artifact.context["commit"]) for artifact in made}
        yield voice.passed("commit", f"made from {counted(len(commits), 'clean commit')}")


def _environment(voice: Voice) -> Iterator[Finding]:
    lock = read_lock(voice.scope.settings.checkout / LOCK)
    if lock is None or not lock.versions:
        yield voice.say("warn", "lock", LOCK, "there is no lock of the environment in the checkout")
        return
    if lock.unhashed:
        yield voice.say(
            "fail",
            "lock",
            LOCK,
            f"{counted(len(lock.unhashed), 'package')} without a hash: {some(lock.unhashed)}",
        )
    else:
        count = counted(len(lock.versions), "package")
        yield voice.passed("lock", f"{LOCK} pins {count}, each with hashes")
    yield from _recorded(voice, lock)
    yield _installed(voice, lock)


def _recorded(voice: Voice, lock: Lock) -> Iterator[Finding]:
    """Versions that made the artifacts, against the lock."""
    different: dict[str, list[Artifact]] = {}
    for artifact in voice.scope.artifacts:
        versions = artifact.numerics.get("packages")
        for name, (was, locked) in deviations(_as_versions(versions), lock).items():
            different.setdefault(f"{name} {was}, the lock says {locked}", []).append(artifact)
    for what, artifacts in different.items():
        yield voice.say(
            "warn",
            "recorded versions",
            some([artifact.key for artifact in artifacts]),
            f"{counted(len(artifacts), 'artifact')} made with {what}",
            artifacts=artifacts,
            then=f"pip install --require-hashes -r {LOCK}",
        )
    if not different:
        yield voice.passed("recorded versions", "everything was made with the locked versions")


def _as_versions(value: Any) -> Mapping[str, str | None]:
    return value if isinstance(value, Mapping) else {}


def _installed(voice: Voice, lock: Lock) -> Finding:
    different = deviations(installed_versions(), lock)
    if not different:
        return voice.passed("installed versions", "what is installed here is what the lock says")
    shown = [f"{name} {was} for {locked}" for name, (was, locked) in different.items()]
    return voice.say(
        "warn",
        "installed versions",
        "this environment",
        f"{counted(len(different), 'package')} installed in another version: {some(shown)}. A "
        "repeat here may differ",
        then=f"pip install --require-hashes -r {LOCK}",
    )


def _container(voice: Voice) -> Iterator[Finding]:
    """One image, known by its digest; none at all is no fault, as the lock pins packages."""
    made = [artifact for artifact in voice.scope.artifacts if artifact.content]
    images: dict[str, list[Artifact]] = {}
    for artifact in made:
        images.setdefault(str(artifact.context.get("container") or ""), []).append(artifact)
    if set(images) <= {""}:
        yield voice.not_applicable("container", "no container was used; the lock pins packages")
        return
    unknown = {image: found for image, found in images.items() if not _DIGEST.search(image)}
    for image, artifacts in unknown.items():
        count = counted(len(artifacts), "artifact")
        yield voice.say(
            "warn",
            "container",
            some([artifact.key for artifact in artifacts]),
            f"{count} made in the image '{image}', whose digest is not known. Set "
            "KD_CONTAINER_DIGEST where it is started"
            if image
            else f"{count} made outside of the container in which others were made",
            artifacts=artifacts,
        )
    named = sorted(set(images) - {""})
    if len(named) > 1:
        yield voice.say(
            "warn",
            "container",
            voice.scope.results.name,
            f"made in {len(named)} images: {some(named)}",
            artifacts=made,
        )
    elif not unknown:
        yield voice.passed("container", f"made in {some(named)}")
