"""What is wrong inside an output whose digest is not the recorded one, where that can be told."""

import json
from pathlib import Path

from kd.audit.weights import DamagedWeightsError, read_header
from kd.provenance.canonical import file_digest


def describe_damage(path: Path) -> str | None:
    """The damaged part of an output, in a few words; None where its format does not tell."""
    if not path.is_dir():
        return None
    return _damaged_shard(path) or _damaged_weights(path)


def _damaged_shard(folder: Path) -> str | None:
    """The first shard of a logit store that is not as the store's own index says."""
    try:
        shards = json.loads((folder / "index.json").read_text(encoding="utf-8"))["shards"]
        for shard in shards:
            path = folder / shard["file"]
            if not path.is_file():
                return f"{shard['file']} is missing"
            if path.stat().st_size != shard["bytes"]:
                return f"{shard['file']} has {path.stat().st_size} of {shard['bytes']} bytes"
            if file_digest(path) != shard["sha256"]:
                return f"{shard['file']} has other bytes than its index says"
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return None


def _damaged_weights(folder: Path) -> str | None:
    for path in sorted(folder.glob("*.safetensors")):
        try:
            read_header(path)
        except DamagedWeightsError as error:
            return f"{path.name}: {error}"
    return None
