"""Finished pieces of a long stage, one a line, so that a killed process loses one at most."""

import hashlib
import json
import os
import sys
from pathlib import Path
from typing import Any

from kd.provenance.canonical import canonical_json


class Journal:
    """An append-only file of JSON values below `root/<fingerprint>`.

    Each line begins with the digest of the rest. The first line that does not match is cut off,
    with all that follow, and a warning says how many: their places in the work depend on it. If it
    is the last line, a process was killed while writing it; otherwise the file was damaged later.
    """

    def __init__(self, root: Path, fingerprint: str) -> None:
        """Read what is there; nothing is created before the first `append`."""
        self.folder = root / fingerprint[:16]
        self.path = self.folder / "journal.jsonl"
        self.entries: list[Any] = []
        if self.path.is_file():
            self._read()

    def append(self, value: Any) -> None:
        """Add `value`; it is on disk when this returns."""
        text = canonical_json(value)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("ab") as file:
            file.write(f"{_digest(text)} {text}\n".encode())
            file.flush()
            os.fsync(file.fileno())
        self.entries.append(value)

    def _read(self) -> None:
        lines = self.path.read_bytes().splitlines(keepends=True)
        whole = 0
        for number, line in enumerate(lines, start=1):
            digest, _, text = line.decode(errors="replace").partition(" ")
            if not text.endswith("\n") or _digest(text[:-1]) != digest:
                print(
                    f"warning: {self.path}: line {number} is damaged; the {number - 1} before it "
                    f"are kept, and it and the {len(lines) - number} after it are done again",
                    file=sys.stderr,
                )
                break
            self.entries.append(json.loads(text))
            whole += len(line)
        os.truncate(self.path, whole)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]
