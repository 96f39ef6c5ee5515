"""Which of two probabilities is larger where float32 does not tell.

Two probabilities of the same rank that differ by less than rounding are compared by chance, and
each wrong answer moves the gradient by twice the probability: one in some hundred rows has such a
pair with a weight of 1e-5 of its gradient. These few rows are looked at again, in float64. (Not
looked at are pairs on both sides of a border between classes, one close call in a thousand: see
`kd.losses.kernels.ordering`.)
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kd.losses.kernels.softmax import Floats

Ints = NDArray[np.intp]

NEGLIGIBLE = 16.0  # nats below a row's likeliest token: less than 1e-7 of the gradient


@dataclass(frozen=True)
class CloseCalls:
    """Logits of both sides as they are given, [n, V]; log-probabilities of the teacher will do."""

    student: Floats
    teacher: Floats
    normalised: bool  # whether the teacher's are log-probabilities

    def recheck(  # noqa: PLR0917 - three places and two values of each pair
        self,
        ahead: NDArray[np.bool_],
        rows: Ints,
        columns: Ints,
        other_columns: Ints,
        values: Floats,
        other_values: Floats,
    ) -> None:
        """Correct `ahead` [M], whether the teacher's value is larger than the student's.

        Args:
            ahead: what the values say; overwritten.
            rows: of each pair, [M].
            columns: of the student's value in its row, [M].
            other_columns: of the teacher's, [M].
            values: the student's, less the largest of its row, [M].
            other_values: the teacher's, on the same scale, [M].
        """
        eps = np.finfo(values.dtype).eps
        with np.errstate(invalid="ignore"):  # impossible on both sides: not close
            gap = np.abs(other_values - values)
        close = gap <= 2 * eps * (1 - values)  # the sum of what rounding takes of either
        pairs = np.flatnonzero(close & (values > -NEGLIGIBLE))
        at = rows[pairs]
        student = self.student[at, columns[pairs]].astype(np.float64)
        teacher = self.teacher[at, other_columns[pairs]].astype(np.float64)
        concerned, which = np.unique(at, return_inverse=True)
        shifts = np.array([self._shift(row) for row in concerned])
        if len(pairs):
            ahead[pairs] = teacher - student > shifts[which]

    def _shift(self, row: int) -> float:
        """What makes the teacher's logits of a row comparable with the student's."""
        other = 0.0 if self.normalised else _log_sum_exp(self.teacher[row])
        return other - _log_sum_exp(self.student[row])


def _log_sum_exp(row: Floats) -> float:
    wide = row.astype(np.float64)
    top = wide.max()
    return float(top + np.log(np.exp(wide - top).sum()))
