"""The largest values of wide rows, without sorting or partitioning the rows."""

import numpy as np

from kd.losses.kernels.ordering import Ints
from kd.losses.kernels.softmax import Floats

BLOCKS = 4  # for each value that is looked for


def leading(values: Floats, count: int) -> tuple[Floats, Ints]:
    """The `count` largest of each of the rows [n, V], descending, with their columns.

    Equal values come in their own order. Fewer than `count` finite ones are filled up with -inf.
    A row is cut into several times as many blocks as values are looked for. Of the blocks' maxima
    the one at place `count` is a value that at least `count` reach, and, since two large values
    are seldom in one block, few others.
    """
    rows, columns = np.divmod(np.flatnonzero(_candidates(values, count)), values.shape[1])
    found = np.bincount(rows, minlength=len(values))
    width = max(count, found.max())
    first = np.cumsum(found) - found
    places = rows, np.arange(len(rows)) - first[rows]
    some = np.full((len(values), width), -np.inf, dtype=values.dtype)
    some[places] = values[rows, columns]
    where = np.zeros(some.shape, dtype=np.intp)
    where[places] = columns
    order = np.argsort(-some, axis=-1, kind="stable")[:, :count]
    return np.take_along_axis(some, order, -1), np.take_along_axis(where, order, -1)


def _candidates(values: Floats, count: int) -> np.ndarray:
    blocks = min(BLOCKS * count, values.shape[1])
    whole = values.shape[1] // blocks * blocks
    maxima = values[:, :whole].reshape(len(values), -1, blocks).max(axis=1)
    rest = values.shape[1] - whole
    np.maximum(maxima[:, :rest], values[:, whole:], out=maxima[:, :rest])
    place = max(blocks - count, 0)
    least = np.partition(maxima, place, axis=-1)[:, place, None]
    return values >= np.maximum(least, np.finfo(values.dtype).min)
