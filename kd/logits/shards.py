"""How rows lie in a shard: a few flat tensors, cut into rows by offsets.

See docs/logit-store.md for the format. Whole numbers take the fewest bytes that hold the largest
one of the shard; token ids of large vocabularies are split into 16 low and 8 high bits.
"""

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch

from kd.errors import ArtifactError
from kd.logits.codec import DROPPED_STEP, decode, encode_log_probs, encode_masses
from kd.logits.index import Index
from kd.logits.rows import ROUNDING, Array, StoredRows, TeacherRow, offsets, tensor
from kd.logits.selection import Ints
from kd.provenance.canonical import canonical_json

Arrays = dict[str, Array]

OF_ROWS = ("row_tokens", "row_entries", "row_checksums")
OF_ENTRIES = ("ids", "ids_high", "log_probs", "draws")
HIGH = "_high"  # suffix of the upper bits of token ids
SMALL_IDS = 1 << 16


@dataclass(frozen=True)
class Layout:
    """What of an index decides on the tensors of its shards."""

    vocabulary: int
    ids: bool
    step: float | None  # of compact log-probabilities
    draws: int | None
    temperatures: tuple[float, ...]

    @classmethod
    def of(cls, index: Index) -> "Layout":
        """The layout of an index's shards."""
        draws = None if index.draws is None else index.draws.number
        return cls(index.vocabulary, index.ids, index.step, draws, tuple(index.temperatures))

    @cached_property
    def checksum(self) -> int:
        """Where rows' checksums begin: under another layout equal bytes mean something else."""
        return zlib.crc32(canonical_json(asdict(self)).encode())


def pack(parts: Sequence[StoredRows], layout: Layout) -> Arrays:
    """Lay rows end to end: rows are ranges of tokens, tokens are ranges of entries."""
    rows = _joined(parts)
    row_tokens = _edges(rows.lengths)
    arrays: Arrays = {
        "row_tokens": row_tokens.astype(np.uint32),
        "row_entries": _edges(rows.counts)[row_tokens].astype(np.uint32),
        "counts": _smallest(rows.counts),
        "token_log_probs": rows.own,
        "ends": _smallest(_lengths_of_tokens(rows.ends, row_tokens[:-1])),
    }
    if layout.ids:
        arrays |= _split("tokens", rows.tokens, layout) | _split("ids", rows.kept, layout)
    if layout.draws is not None:
        assert rows.entropies is not None
        numbers = np.rint(np.exp(rows.log_probs) * layout.draws).astype(np.int64)
        arrays |= {"draws": _smallest(numbers), "entropies": rows.entropies}
    elif layout.step is not None:
        arrays["log_probs"] = encode_log_probs(rows.log_probs, layout.step)
        arrays["dropped"] = encode_masses(rows.dropped)
    else:
        arrays["log_probs"] = rows.log_probs.astype(np.float32)
        arrays["dropped"] = rows.dropped  # float64: of 1 - d few digits may be left
    sums = [checksum(arrays, row_id, place, layout) for place, row_id in enumerate(rows.ids)]
    return arrays | {"row_checksums": np.array(sums, dtype=np.uint32)}


def cut(arrays: Mapping[str, Array], place: int) -> Arrays:
    """The part of a shard that is the row at `place`."""
    (first, last), (start, stop) = (
        arrays[name][place : place + 2].tolist() for name in ("row_tokens", "row_entries")
    )
    tokens, entries = slice(first, last), slice(start, stop)
    return {
        name: arrays[name][entries if name in OF_ENTRIES else tokens]
        for name in sorted(arrays)
        if name not in OF_ROWS
    }


def checksum(arrays: Mapping[str, Array], row_id: str, place: int, layout: Layout) -> int:
    """CRC-32 of the layout, of a row's id and of all that belongs to it."""
    found = zlib.crc32(row_id.encode(), layout.checksum)
    for part in cut(arrays, place).values():
        found = zlib.crc32(part.data, found)
    return found


def unpack(arrays: Mapping[str, Array], row_id: str, place: int, layout: Layout) -> TeacherRow:
    """The row at `place` of a shard.

    Raises:
        ValueError: its bytes are not those that were written for this row.
    """
    if checksum(arrays, row_id, place, layout) != int(arrays["row_checksums"][place]):
        raise ValueError("its checksum does not fit")
    part = cut(arrays, place)
    counts = part["counts"].astype(np.int64)
    return TeacherRow(
        id=row_id,
        token_ids=tensor(_whole("tokens", part), np.int32) if layout.ids else None,
        token_log_probs=tensor(part["token_log_probs"], np.float32),
        ends=tensor(part["ends"].cumsum(dtype=np.int64), np.int32),
        offsets=offsets(counts),
        ids=tensor(_whole("ids", part), np.int32) if layout.ids else None,
        vocabulary=layout.vocabulary,
        temperatures=layout.temperatures,
        **_probabilities(part, counts, layout),
    )


def _probabilities(part: Arrays, counts: Ints, layout: Layout) -> dict[str, Any]:
    if layout.draws is not None:
        shares = np.log(part["draws"].astype(np.float64) / layout.draws)
        return {
            "log_probs": tensor(shares, np.float32),
            "dropped": torch.zeros(len(counts), 1, dtype=torch.float64),
            "draws": layout.draws,
            "entropies": tensor(part["entropies"], np.float32),
        }
    errors: Array = np.full(len(counts), ROUNDING)
    log_probs, dropped = part["log_probs"], part["dropped"]
    if layout.step is not None:
        log_probs, dropped, errors = decode(log_probs, counts, dropped, layout.step)
    return {
        "log_probs": tensor(log_probs, np.float32),
        "dropped": tensor(dropped, np.float64),
        "log_errors": tensor(errors, np.float32),
        "dropped_error": 2 * ROUNDING + (DROPPED_STEP if layout.step is not None else 0.0),
    }


def _joined(parts: Sequence[StoredRows]) -> StoredRows:
    values = {
        name: np.concatenate([getattr(part, name) for part in parts])
        for name, value in vars(parts[0]).items()
        if isinstance(value, np.ndarray)
    }
    return replace(parts[0], ids=[row_id for part in parts for row_id in part.ids], **values)


def _edges(lengths: Ints) -> Ints:
    return np.concatenate([[0], lengths.cumsum()])


def _lengths_of_tokens(ends: Array, first: Ints) -> Array:
    """Bytes of each token, from where it ends; `first` are the first tokens of rows."""
    lengths: Array = np.diff(ends, prepend=0)
    begun = first[first < len(ends)]  # empty rows at the end have none
    lengths[begun] = ends[begun]
    if (lengths < 0).any():
        raise ArtifactError("a token of an answer ends before the one before it.")
    return lengths


def _smallest(numbers: Array) -> Array:
    """Whole numbers >= 0 in as few bytes as hold them all."""
    return numbers.astype(np.min_scalar_type(int(numbers.max(initial=0))))


def _split(name: str, ids: Array, layout: Layout) -> Arrays:
    low = {name: (ids & (SMALL_IDS - 1)).astype(np.uint16)}
    if layout.vocabulary <= SMALL_IDS:
        return low
    return low | {name + HIGH: (ids >> 16).astype(np.uint8)}


def _whole(name: str, part: Arrays) -> Array:
    low = part[name].astype(np.int32)
    return low | part[name + HIGH].astype(np.int32) << 16 if name + HIGH in part else low
