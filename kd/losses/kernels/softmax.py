"""Rows of logits and their exponentials, with one exponential a token."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating[Any]]


def without_padding(log_probs: Floats) -> Floats:
    """Rows [n, K] that end with a padding of -inf, cut down to the most that any of them has.

    A batch is padded to its longest row, which may be many times as long as those of a part.
    """
    return log_probs[:, : np.count_nonzero(log_probs != -np.inf, axis=-1).max(initial=1)]


@dataclass(frozen=True)
class Softmax:
    """Rows [n, V] of logits, less the largest of each, and of their exponentials."""

    logits: Floats
    probs: Floats  # the exponentials, not divided by their sum
    total: Floats  # [n, 1], that sum

    @classmethod
    def of(cls, rows: Floats) -> "Softmax":
        """Of logits [n, V], which stay as they are."""
        logits = rows - rows.max(axis=-1, keepdims=True)
        probs = np.exp(logits)
        return cls(logits, probs, probs.sum(axis=-1, keepdims=True))

    def normalised(self) -> "Softmax":
        """The same, overwritten by log-probabilities and probabilities."""
        np.subtract(self.logits, np.log(self.total), out=self.logits)
        np.divide(self.probs, self.total, out=self.probs)
        return self
