"""Which of two lists of values is larger, rank by rank, without sorting either of them.

Sorting a row of a vocabulary's width costs more than all other arithmetic of a loss. But values
need not be sorted to be compared by rank. Count how many values of each list fall into each of
many narrow classes: the counts, summed from the largest class on, are the ranks at which a class
begins and ends, and where these ranks do not overlap with those of the other list's class, all
of its values are decided at once. Only the values of the few other classes are put in order.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kd.losses.kernels.softmax import Floats

Bytes = NDArray[np.uint8]
Ints = NDArray[np.intp]

CLASSES = 1 << 14
LAST = CLASSES - 1  # the class of all values that are out of reach
BELOW, ABOVE, OPEN = 0, 1, 2  # where the second list is at a value's rank; OPEN: not known yet


class Ranked:
    """Rows [n, V] of values, and the ranks that each class of them has.

    A class is an interval of values of 1 / LAST of `reach`, counted from 0 downwards. Values
    greater than 0 are in the first class, those beyond the reach in the last one.
    """

    def __init__(self, values: Floats, reach: float, *, descending: bool = False) -> None:
        """Take in `values` [n, V], which may be in descending order already."""
        self.values = values
        self.reach = reach
        self.descending = descending
        self.classes = np.empty(values.shape, np.intp)
        self._bounds = np.zeros((len(values), CLASSES + 1), np.int32)
        scale = values.dtype.type(-LAST / reach)
        for row, classes, bounds in zip(values, self.classes, self._bounds, strict=True):
            scaled = row * scale
            np.clip(scaled, 0, LAST, out=scaled)
            with np.errstate(invalid="ignore"):  # NaN is in any class: its row's sums are NaN too
                classes[:] = scaled.astype(np.uint16)
            np.cumsum(np.bincount(classes, minlength=CLASSES), out=bounds[1:])

    @property
    def starts(self) -> NDArray[np.int32]:
        """The rank at which each class begins, [n, CLASSES]."""
        return self._bounds[:, :-1]

    @property
    def ends(self) -> NDArray[np.int32]:
        """The rank after the last one of each class, [n, CLASSES]."""
        return self._bounds[:, 1:]

    def states(self, by_class: Bytes) -> Bytes:
        """The state [n, V] of each value, given those of the classes [n, CLASSES]."""
        found = np.empty(self.classes.shape, np.uint8)
        for table, classes, states in zip(by_class, self.classes, found, strict=True):
            table.take(classes, out=states, mode="clip")
        return found

    def placed(self, states: Bytes) -> "Placed":
        """The values whose state is OPEN, with their ranks; equal ones in their own order."""
        rows, columns = np.divmod(np.flatnonzero(states == OPEN), states.shape[1])
        values = self.values[rows, columns]
        if self.descending:
            return Placed(rows, columns, columns, values)
        order = np.lexsort((-values, rows))
        columns, values = columns[order], values[order]  # the rows ascend as they were
        classes = self.classes[rows, columns]
        new = np.flatnonzero(np.diff(rows * CLASSES + classes, prepend=-1))
        within = np.arange(len(rows)) - np.repeat(new, np.diff(new, append=len(rows)))
        return Placed(rows, columns, self.starts[rows, classes] + within, values)


@dataclass(frozen=True)
class Placed:
    """Some values of rows, in the order of rows and ranks."""

    rows: Ints
    columns: Ints
    ranks: Ints
    values: Floats


Recheck = Callable[[NDArray[np.bool_], Ints, Ints, Ints, Floats, Floats], None]
"""Corrects which values of the second list are larger, as `CloseCalls.recheck` does."""


def compare(first: Ranked, second: Ranked, recheck: Recheck | None = None) -> tuple[Bytes, Bytes]:
    """Where the second list is above the first, rank by rank: 1 there and 0 elsewhere.

    Of lists of different lengths the longer one is above in the ranks that the other lacks.
    Values that are out of reach count as equal to whatever has their rank.

    Returns:
        The state of the rank that each value of the first has, [n, V1], and of the second, [n, V2].
    """
    above = first.ends <= second.starts
    by_class = (first.starts < second.ends).view(np.uint8)  # else below
    by_class <<= 1
    by_class[above] = ABOVE
    by_class[:, LAST] = BELOW
    ours, theirs = first.states(by_class), second.states(by_class)
    _decide(first, ours, second, theirs, recheck)
    return ours, theirs


def _decide(
    first: Ranked, ours: Bytes, second: Ranked, theirs: Bytes, recheck: Recheck | None
) -> None:
    """Fill in the states that are open, from the values themselves."""
    one, other = first.placed(ours), second.placed(theirs)
    # If the other list has no open value at a rank, then one of another class, which is decided
    # by where that rank is beside the ranks of the own class in the other list.
    mine = one.ranks < second.starts[one.rows, first.classes[one.rows, one.columns]]
    yours = other.ranks >= first.ends[other.rows, second.classes[other.rows, other.columns]]
    width = max(ours.shape[1], theirs.shape[1])
    keys = other.rows * width + other.ranks
    wanted = one.rows * width + one.ranks
    at = np.minimum(keys.searchsorted(wanted), len(keys) - 1)
    met = np.flatnonzero(keys[at] == wanted) if len(keys) else at[:0]
    values, others = one.values[met], other.values[at[met]]
    ahead = others > values
    if recheck is not None:
        recheck(ahead, one.rows[met], one.columns[met], other.columns[at[met]], values, others)
    mine[met] = yours[at[met]] = ahead
    ours[one.rows, one.columns] = mine
    theirs[other.rows, other.columns] = yours
