"""What each row counts in the mean of a batch."""

import torch
from torch import Tensor


def row_weights(sequence: Tensor, reduction: str, normalizer: int | None) -> Tensor:
    """What each of N rows counts, [N] float64, so that the weighted sum is the mean asked for."""
    count = normalizer or count_rows(sequence, reduction) or 1
    if reduction == "token":
        return torch.full_like(sequence, 1 / count, dtype=torch.float64)
    return 1 / (count * sequence.bincount()[sequence].double())


def count_rows(sequence: Tensor, reduction: str) -> int:
    """Aligned tokens, or sequences that have any."""
    return len(sequence) if reduction == "token" else int(sequence.bincount().count_nonzero())
