"""Score files and their predictions, read and scored once: what all checks look at."""

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Literal

from kd.audit.published.archive import Archive
from kd.audit.published.protocol import (
    MalformedError,
    Protocol,
    Published,
    Row,
    Run,
    Scored,
)

Scale = Literal["percent", "fractions"]


@dataclass(frozen=True)
class Predictions:
    """A predictions file: its scores, and what later checks need of its rows.

    `keys` identifies each row by what it is scored against, so that two files can be aligned.
    """

    rows: int
    empty: int
    keys: tuple[bytes, ...]
    digest: bytes
    scored: Scored


@dataclass(frozen=True)
class Entry:
    """One score file. `values` are its metrics in percent, whatever its own `scale`."""

    run: Run
    published: Published
    scale: Scale
    values: dict[str, float]
    predictions: Predictions | None
    unread: str = ""  # why there are no predictions; empty where there are

    @property
    def subject(self) -> str:
        """The score file's path, as findings name it."""
        return str(self.run.path)

    @property
    def tested(self) -> int | None:
        """Number of test rows: counted, or else as stated."""
        return self.predictions.rows if self.predictions else self.published.rows


@dataclass
class Contents:
    """Everything found in an archive. `malformed` maps a path to what is wrong with it."""

    entries: list[Entry] = field(default_factory=list)
    malformed: dict[PurePosixPath, str] = field(default_factory=dict)
    orphans: list[PurePosixPath] = field(default_factory=list)


Score = Callable[[Sequence[Row]], Scored]


def read_entries(archive: Archive, protocol: Protocol, score: Score) -> Contents:
    """Read every score file that the protocol recognises, and `score` its predictions."""
    contents = Contents()
    claimed: set[PurePosixPath] = set()
    for path in archive.files:
        try:
            run = protocol.run(path)
            if run is not None:
                claimed.add(run.predictions)
                contents.entries.append(_entry(archive, protocol, score, run, contents.malformed))
        except MalformedError as error:
            contents.malformed[path] = str(error)
    contents.orphans = [p for p in archive.files if protocol.is_predictions(p) and p not in claimed]
    return contents


def _entry(
    archive: Archive,
    protocol: Protocol,
    score: Score,
    run: Run,
    malformed: dict[PurePosixPath, str],
) -> Entry:
    published = protocol.published(archive.text(run.path))
    predictions, unread = None, ""
    if run.predictions in archive.refused:
        unread = f"its predictions file is {archive.refused[run.predictions]}"
    elif run.predictions not in archive:
        unread = "no predictions file is published beside it"
    else:
        try:
            predictions = _predictions(protocol.rows(archive.text(run.predictions)), score)
        except MalformedError as error:
            unread = "its predictions file is unreadable"
            malformed[run.predictions] = str(error)
    scale = _scale(published, protocol, predictions)
    factor = 100 if scale == "fractions" else 1
    values = {name: factor * value for name, value in published.values.items()}
    return Entry(run, published, scale, values, predictions, unread)


def _predictions(rows: Sequence[Row], score: Score) -> Predictions:
    if not rows:
        raise MalformedError("holds no predictions")
    return Predictions(
        rows=len(rows),
        empty=sum(not row.prediction.strip() for row in rows),
        keys=tuple(_digest(row.complete) for row in rows),
        digest=_digest([row.prediction for row in rows]),
        scored=score(rows),
    )


def _digest(texts: Iterable[str]) -> bytes:
    joined = "\0".join(texts).encode("utf-8", "surrogatepass")  # JSON may hold half a pair
    return hashlib.blake2b(joined, digest_size=16).digest()


def _scale(published: Published, protocol: Protocol, predictions: Predictions | None) -> Scale:
    """Fractions if no overlap metric exceeds 1, unless recomputing shows percent."""
    overlaps = {
        name: value
        for name, value in published.values.items()
        if protocol.rules.get(name) in ("exact", "bootstrap")
    }
    if max(overlaps.values(), default=0.0) > 1:
        return "percent"
    if predictions is None:
        return "fractions"
    authors = predictions.scored.authors
    off = {
        factor: sum(abs(factor * overlaps[name] - authors[name]) for name in overlaps)
        for factor in (1, 100)
    }
    return "percent" if off[1] < off[100] else "fractions"
