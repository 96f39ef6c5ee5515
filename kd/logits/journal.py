"""What a writer has finished so far, so that the next one does not do it again.

It stands beside the finished shards in `.<name>.partial`. When the store takes its place, hard
links to its files do, and the folder stays: what follows may be killed, too, and then the store
may be deleted as half done (Snakemake does that), or its manifest may be missing.
"""

import json
import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kd.logits.index import Shard
from kd.provenance.canonical import canonical_json, file_digest
from kd.provenance.files import write_text

JOURNAL = "unfinished.json"


def partial_of(folder: Path) -> Path:
    """Where the store `folder` is written."""
    return folder.with_name(f".{folder.name}.partial")


def discard_partial(folder: Path) -> None:
    """All that was to follow the store `folder` is done: nobody has to go on with it."""
    shutil.rmtree(partial_of(folder), ignore_errors=True)


def write_journal(folder: Path, settings: dict[str, Any], shards: Sequence[Shard]) -> None:
    """Say in `folder` what is written there, and which of its shards are finished."""
    content = settings | {"shards": [shard.model_dump() for shard in shards]}
    write_text(folder / JOURNAL, canonical_json(content) + "\n")


def finished_shards(folder: Path, settings: dict[str, Any]) -> list[Shard]:
    """The shards in `folder` up to the first damaged one; none if its journal has other settings.

    There may be no journal, or no such folder.
    """
    try:
        journal = json.loads((folder / JOURNAL).read_text(encoding="utf-8"))
        shards = [Shard.model_validate(shard) for shard in journal.pop("shards")]
    except (OSError, ValueError, KeyError, AttributeError, TypeError):
        return []
    if journal != settings:
        return []
    for place, shard in enumerate(shards):
        if not _is_sound(folder / shard.file, shard):
            print(
                f"warning: {folder / shard.file} is damaged: the teacher's logits are computed "
                "again from there on",
                file=sys.stderr,
            )
            return shards[:place]
    return shards


def link_store(partial: Path, to: Path) -> bool:
    """Make the folder `to` of hard links to what is in `partial`, less the journal, if possible."""
    shutil.rmtree(to, ignore_errors=True)
    try:
        shutil.copytree(partial, to, copy_function=os.link, ignore=shutil.ignore_patterns(JOURNAL))
    except OSError:  # a file system without links
        shutil.rmtree(to, ignore_errors=True)
        return False
    return True


def _is_sound(path: Path, shard: Shard) -> bool:
    return path.is_file() and file_digest(path) == shard.sha256
