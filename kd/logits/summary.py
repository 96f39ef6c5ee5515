"""What a store holds, in a few numbers."""

from typing import Any

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
    drawn = reader.index.draws is not None
    tokens = kept = 0
    total = largest = 0.0
    for row_id in reader:  # one at a time: a store may be larger than memory
        row = reader[row_id]
        tokens, kept = tokens + len(row), kept + len(row.log_probs)
        left = gradient_variance(row) if drawn else row.dropped[:, 0].numpy()
        total, largest = total + float(left.sum()), max(largest, float(left.max(initial=0.0)))
    found: dict[str, Any] = {"rows": len(reader), "answer_tokens": tokens}
    if not tokens:
        return found
    size = sum(shard.bytes for shard in reader.index.shards)
    found |= {"bytes_per_token": round(size / tokens, 2), "kept": round(kept / tokens, 3)}
    if drawn:
        return found | {"gradient_variance": total / tokens}
    return found | {"dropped_mean": total / tokens, "dropped_max": largest}
