"""Small stores for the tests: five rows over eleven tokens, one of them empty."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from kd.logits import LogitWriter

VOCABULARY = 11
IDS = ["b", "a", "empty", "c", "ünï/ d"]


def example(row_id: str) -> dict[str, Tensor]:
    """Answer tokens [T], their logits [T, V] and ends [T] of a row, by its place in IDS."""
    length = 0 if row_id == "empty" else 2 + IDS.index(row_id)
    torch.manual_seed(IDS.index(row_id))
    return {
        "token_ids": torch.randint(VOCABULARY, (length,)),
        "logits": 3 * torch.randn(length, VOCABULARY),
        "ends": torch.randint(5, (length,)).cumsum(0),
    }


def write(folder: Path, ids: list[str] = IDS, shard_entries: int = 20, **settings: Any) -> Path:
    settings = {"epsilon": 0.05, "cap": 6, "ids": settings.pop("with_ids", True)} | settings
    with LogitWriter(
        folder, vocabulary=VOCABULARY, shard_entries=shard_entries, **settings
    ) as writer:
        for row_id in ids:
            writer.add(row_id, **example(row_id))
    return folder


def shards(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.safetensors"))


def contents(folder: Path) -> dict[str, bytes]:
    """The bytes of all files in a folder, by name."""
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}
