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

FEWEST, MOST = 1 << 9, 1 << 14  # classes
AT_ONCE = 1 << 15  # values: narrow rows are many, and each call costs as much as a row of 1000
BELOW, ABOVE, OPEN = 0, 1, 2  # where the second list is at a value's rank; OPEN: not known yet


def classes_for(width: int) -> int:
    """Into how many classes rows of `width` values are best counted: half to all of the width.

    Few classes leave many values to be put in order; many take longer to be summed up than narrow
    rows to be sorted: 16384 classes take five times as long as 512 for rows of 1000. With as many
    as this, counting takes as long as sorting rows of 500, and less from 1000 on: so there is no
    path that sorts narrow rows.
    """
    return int(min(max(1 << int(width).bit_length() - 1, FEWEST), MOST))


def _counts(classes: Ints, number: int) -> Ints:
    """How many values of each row [n, V] are in each class, [n, number]."""
    if len(classes) == 1:
        return np.bincount(classes[0], minlength=number)[None]
    cells = classes + number * np.arange(len(classes))[:, None]
    return np.bincount(cells.reshape(-1), minlength=number * len(classes)).reshape(-1, number)


class Ranked:
    """Rows [n, V] of values, and the ranks that each class of them has.

    The last class is that of all values that are out of reach. The others are equal intervals of
    `reach`, counted from 0 downwards; values greater than 0 are in the first one.
    """

    def __init__(
        self, values: Floats, reach: float, number: int, *, descending: bool = False
    ) -> None:
        """Take in `values` [n, V], which may be in descending order already.

        Args:
            values: one list a row.
            reach: the least value that is told from others is this much below 0.
            number: of classes; the same for lists that are compared.
            descending: whether the values are in that order.
        """
        self.values = values
        self.reach = reach
        self.number = number
        self.descending = descending
        self.classes = np.empty(values.shape, np.intp)
        self._bounds = np.zeros((len(values), number + 1), np.int32)
        last = number - 1
        scale = values.dtype.type(-last / reach)
        at_once = max(1, AT_ONCE // max(values.shape[1], 1))
        for first in range(0, len(values), at_once):
            some = slice(first, first + at_once)
            scaled = values[some] * scale
            np.minimum(np.maximum(scaled, 0, out=scaled), last, out=scaled)
            with np.errstate(invalid="ignore"):  # NaN is in any class: its row's sums are NaN too
                self.classes[some] = scaled.astype(np.uint16)
            counts = _counts(self.classes[some], number)
            np.cumsum(counts, axis=1, out=self._bounds[some, 1:])

    @property
    def starts(self) -> NDArray[np.int32]:
        """The rank at which each class begins, [n, C]."""
        return self._bounds[:, :-1]

    @property
    def ends(self) -> NDArray[np.int32]:
        """The rank after the last one of each class, [n, C]."""
        return self._bounds[:, 1:]

    def states(self, by_class: Bytes) -> Bytes:
        """The state [n, V] of each value, given those of the classes [n, C]."""
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
        new = np.flatnonzero(np.diff(rows * self.number + classes, prepend=-1))
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
    by_class[:, -1] = BELOW  # out of reach
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
