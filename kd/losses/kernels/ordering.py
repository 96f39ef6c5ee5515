"""Which of two lists of values is larger, rank by rank, without sorting either of them.

Sorting a row of a vocabulary's width costs more than all other arithmetic of a loss. But values
need not be sorted to be compared by rank: 16 bits of each can be (a radix sort, in two passes
over the row), and decide on all ranks but those at which both lists agree in these bits. There
the few values themselves are put in order.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kd.losses.kernels.softmax import Floats

Bytes = NDArray[np.uint8]
Ints = NDArray[np.intp]

CLASSES = 1 << 16
LAST = CLASSES - 1  # the class of all values that are out of reach
BELOW, ABOVE, OPEN = 0, 1, 2  # where the second list is at a rank; OPEN: its class does not tell


class Ordered:
    """Rows [n, V] of values, in descending order of their classes, not of their own.

    A class is an interval of values of 1 / 65535 of `reach`, counted from 0 downwards. Values
    greater than 0 are in the first class, those beyond the reach in the last one.
    """

    def __init__(self, values: Floats, reach: float, *, descending: bool = False) -> None:
        """Take in `values` [n, V], which may be in descending order already."""
        scaled = values * values.dtype.type(-LAST / reach)
        np.clip(scaled, 0, LAST, out=scaled)
        self.values = values
        with np.errstate(invalid="ignore"):  # NaN is in any class: its row's sums are NaN too
            self.classes = scaled.astype(np.uint16)  # [n, V], in the order of the values
        self.ranked = self.classes  # [n, V], from the largest value to the smallest
        if not descending:
            self.ranked = self.classes.copy()
            self.ranked.sort(axis=-1, kind="stable")  # of 16 bits: a radix sort

    def states(self, by_rank: Bytes) -> Bytes:
        """The state [n, V] of each value, given those of the ranks [n, V].

        OPEN where values of one class have ranks of different states, or of an open one.
        """
        if self.ranked is self.classes:
            return by_rank
        rows, ranks = _runs(by_rank)
        first = self.ranked[rows, ranks].astype(np.intp)
        # Values of one class share a state with the class in which their run begins, and a run
        # lasts until the next one begins.
        place = rows * CLASSES + np.where(ranks == 0, 0, first)
        lengths = np.diff(place, append=len(by_rank) * CLASSES)
        table = np.repeat(by_rank[rows, ranks], lengths)
        cut = (ranks > 0) & (self.ranked[rows, ranks - 1] == first)  # a class in two runs
        table[place[cut]] = OPEN
        found = np.empty(self.classes.shape, np.uint8)
        for row, states in enumerate(table.reshape(len(by_rank), CLASSES)):
            states.take(self.classes[row].astype(np.intp), out=found[row], mode="clip")
        return found

    def placed(self, states: Bytes) -> "Placed":
        """The values whose state is OPEN, with their ranks; equal ones in their own order."""
        rows, columns = _split(np.flatnonzero(states == OPEN), states.shape[1])
        if self.ranked is self.classes:
            return Placed(rows, columns, ranks=columns)
        order = np.lexsort((-self.values[rows, columns], rows))
        columns = columns[order]  # the rows ascend as they were
        group = rows * CLASSES + self.classes[rows, columns]
        new = np.flatnonzero(np.diff(group, prepend=-1))
        first = [
            self.ranked[row].searchsorted(self.classes[row, column])
            for row, column in zip(rows[new], columns[new], strict=True)
        ]
        sizes = np.diff(new, append=len(group))
        ranks = np.arange(len(group)) + np.repeat(np.array(first, dtype=np.intp) - new, sizes)
        return Placed(rows, columns, ranks)


@dataclass(frozen=True)
class Placed:
    """Some values of rows, in the order of rows and ranks."""

    rows: Ints
    columns: Ints
    ranks: Ints


def compare(first: Ordered, second: Ordered) -> tuple[Bytes, Bytes]:
    """Where the second list is above the first, rank by rank: 1 there and 0 elsewhere.

    Of lists of different lengths the longer one is above in the ranks that the other lacks.
    Values that are out of reach on both sides count as equal.

    Returns:
        The state of the rank that each value of the first has, [n, V1], and of the second, [n, V2].
    """
    (n, width), other = first.ranked.shape, second.ranked.shape[1]
    common = min(width, other)
    state = np.full((n, max(width, other)), BELOW if width > other else ABOVE, dtype=np.uint8)
    ours, theirs = first.ranked[:, :common], second.ranked[:, :common]
    undecided = (theirs == ours) & (ours < LAST)
    np.add(theirs < ours, undecided.view(np.uint8) << 1, out=state[:, :common])
    sides = (first, second)
    by_value = [side.states(state[:, : side.ranked.shape[1]]) for side in sides]
    placed = [side.placed(states) for side, states in zip(sides, by_value, strict=True)]
    _decide(state, sides, placed)
    for states, some in zip(by_value, placed, strict=True):
        states[some.rows, some.columns] = state[some.rows, some.ranks]
    return by_value[0], by_value[1]


def _decide(state: Bytes, sides: tuple[Ordered, Ordered], placed: list[Placed]) -> None:
    """Fill in the states that are open, from the values at those ranks."""
    found = []
    for side, some in zip(sides, placed, strict=True):
        exact = np.zeros(state.shape, side.values.dtype)  # untouched but for a few
        exact[some.rows, some.ranks] = side.values[some.rows, some.columns]
        found.append(exact)
    rows, ranks = _split(np.flatnonzero(state == OPEN), state.shape[1])
    state[rows, ranks] = found[1][rows, ranks] > found[0][rows, ranks]


def _runs(states: Bytes) -> tuple[Ints, Ints]:
    """Row and rank at which each run of equal states begins."""
    begins = np.ones(states.shape, dtype=bool)
    np.not_equal(states[:, 1:], states[:, :-1], out=begins[:, 1:])
    return _split(np.flatnonzero(begins), states.shape[1])


def _split(places: Ints, width: int) -> tuple[Ints, Ints]:
    rows, columns = np.divmod(places, width)
    return rows, columns
