"""What a writer has finished so far, so that the next one does not do it again.

A hidden file in the folder that is written: no part of the store, and of no digest of it. It
outlives the moment at which the store takes its place, because what follows may be killed, too.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kd.logits.index import Shard
from kd.provenance.canonical import canonical_json, file_digest
from kd.provenance.files import write_text

JOURNAL = ".journal.json"


def write_journal(folder: Path, settings: dict[str, Any], shards: Sequence[Shard]) -> None:
    """Say in `folder` what is written there, and which of its shards are finished."""
    content = settings | {"shards": [shard.model_dump() for shard in shards]}
    write_text(folder / JOURNAL, canonical_json(content) + "\n")


def finished_shards(folder: Path, settings: dict[str, Any]) -> list[Shard] | None:
    """The shards in `folder` up to the first damaged one; None if its journal has other settings.

    There may be no journal, or no such folder: then it is None, too.
    """
    try:
        journal = json.loads((folder / JOURNAL).read_text(encoding="utf-8"))
        shards = [Shard.model_validate(shard) for shard in journal.pop("shards")]
    except (OSError, ValueError, KeyError, AttributeError, TypeError):
        return None
    if journal != settings:
        return None
    sound = [_is_sound(folder / shard.file, shard) for shard in shards]
    return shards[: (*sound, False).index(False)]


def discard_journal(folder: Path) -> None:
    """All that was to follow the store in `folder` is done."""
    (folder / JOURNAL).unlink(missing_ok=True)


def _is_sound(path: Path, shard: Shard) -> bool:
    return path.is_file() and file_digest(path) == shard.sha256
