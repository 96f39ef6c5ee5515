"""The hashed lock of the environment, and what was installed beside it."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import distributions
from pathlib import Path

LOCK = "requirements.lock"

_PIN = re.compile(r"^(?P<name>[A-Za-z0-9][A-Za-z0-9._-]*)(\[[^\]]*\])?==(?P<version>[^\s;\\]+)")


@dataclass(frozen=True)
class Lock:
    """Versions by normalised name, and the names of those that have no hash."""

    versions: Mapping[str, str]
    unhashed: tuple[str, ...]


def read_lock(path: Path) -> Lock | None:
    """Read a requirements file whose entries carry `--hash` options; None where there is none."""
    if not path.is_file():
        return None
    # A backslash at the end of a line continues it.
    text = path.read_text(encoding="utf-8").replace("\\\n", " ")
    versions: dict[str, str] = {}
    unhashed = []
    for line in text.splitlines():
        found = _PIN.match(line.strip())
        if found:
            name = normalised(found["name"])
            versions[name] = found["version"]
            if "--hash=sha256:" not in line:
                unhashed.append(name)
    return Lock(versions, tuple(unhashed))


def normalised(name: str) -> str:
    """A package's name as the index compares it (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def public_version(version: str) -> str:
    """A version without its local part: `2.13.0+cpu` is a build of `2.13.0`."""
    return version.partition("+")[0]


def deviations(versions: Mapping[str, str | None], lock: Lock) -> dict[str, tuple[str, str]]:
    """Packages of which another version than the locked one was used, with both versions."""
    return {
        name: (version, lock.versions[normalised(name)])
        for name, version in sorted(versions.items())
        if version is not None
        and normalised(name) in lock.versions
        and public_version(version) != public_version(lock.versions[normalised(name)])
    }


def installed_versions() -> dict[str, str | None]:
    """What is installed in this environment."""
    return {normalised(found.metadata["Name"]): found.version for found in distributions()}
