"""What a store holds, in a few numbers."""

from typing import Any

import numpy as np

from kd.logits.drawing import gradient_variance
from kd.logits.reader import LogitReader


def summarise(reader: LogitReader) -> dict[str, Any]:
    """Counts and sizes of a store, and what its rows leave open. Every row is read and checked.

    Returns:
        `rows`, `answer_tokens`, `bytes_per_token`, and as a mean over tokens `kept` (entries a
        token). Of kept tokens `dropped_mean` and `dropped_max`, the mass of the others; of drawn
        ones `gradient_variance`, the mean over tokens of E |p^ - p|^2.

    Raises:
        ArtifactError: the store is damaged.
    """
    size = sum(shard.bytes for shard in reader.index.shards)
    rows = [reader[row_id] for row_id in reader]
    tokens = sum(len(row) for row in rows)
    found: dict[str, Any] = {"rows": len(rows), "answer_tokens": tokens}
    if not tokens:
        return found
    found["bytes_per_token"] = round(size / tokens, 2)
    found["kept"] = round(sum(len(row.log_probs) for row in rows) / tokens, 3)
    if reader.index.draws is not None:
        variances = np.concatenate([gradient_variance(row) for row in rows])
        return found | {"gradient_variance": float(variances.mean())}
    dropped = np.concatenate([row.dropped[:, 0].numpy() for row in rows])
    return found | {
        "dropped_mean": float(dropped.mean(dtype=np.float64)),
        "dropped_max": float(dropped.max()),
    }
