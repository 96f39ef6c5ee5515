"""The kernel of `uld`.

With N the ranks at which the teacher's probability is above the student's, and q_N the sum of
the student's there,

    ULD = 2 * sum over N of (p_r - q_r) + d,      dULD/dz = 2 q (q_N - 1_N),

d being the dropped mass: |x| = 2 * max(x, 0) - x, both sides have the same sum, and the
gradient of a sum of probabilities is q (1_N - q_N).
"""

import numpy as np
import torch
from torch import Tensor

from kd.losses.kernels import Evaluated
from kd.losses.kernels.close_calls import CloseCalls
from kd.losses.kernels.leading import leading
from kd.losses.kernels.ordering import Ranked, classes_for, compare
from kd.losses.kernels.softmax import Floats, Softmax, without_padding
from kd.losses.kernels.sorted_uld import by_sorting
from kd.losses.spans import Spans
from kd.losses.teacher import Teacher, TopKRows

FEW = 8  # the teacher's values are few if they are no more than this part of the student's


def uld(student: Tensor, teacher: Teacher, spans: Spans) -> Evaluated | None:
    """See `kd.losses.ot.uld`; for single tokens. Sorts where there is a GPU to do that."""
    del spans
    if student.device.type != "cpu":
        return by_sorting(student, teacher)
    rows = student.detach().numpy()
    own = Softmax.of(rows)
    if not isinstance(teacher, TopKRows):
        other_rows = teacher.detach().numpy()
        close = CloseCalls(rows, other_rows, normalised=False)
        other = Softmax.of(other_rows)
        values = np.add(other.logits, np.log(own.total) - np.log(other.total), out=other.logits)
        probs = np.divide(other.probs, other.total, out=other.probs)
        number = classes_for(max(rows.shape[1], values.shape[1]))
        theirs = Ranked(values, _reach(own, values), number)
        excess, gradient = _against_all(own, theirs, probs, close)
        return torch.from_numpy(2 * excess), torch.from_numpy(gradient)
    log_probs = without_padding(teacher.log_probs.numpy())
    close = CloseCalls(rows, log_probs, normalised=True)
    if log_probs.shape[1] * FEW <= student.shape[1]:
        excess, gradient = _against_few(own, log_probs, close)
    else:
        values = log_probs + np.log(own.total)
        # The teacher's values out of reach come last, and are below whatever has their ranks.
        reach = _reach(own, values)
        within = np.count_nonzero(~(values < -reach), axis=-1).max()
        number = classes_for(max(rows.shape[1], within))
        theirs = Ranked(values[:, :within], reach, number, descending=True)
        excess, gradient = _against_all(own, theirs, np.exp(log_probs[:, :within]), close)
    return torch.from_numpy(2 * excess) + teacher.dropped, torch.from_numpy(gradient)


def _reach(own: Softmax, values: Floats) -> float:
    """How far below the largest logit all tokens together have less mass than rounding takes.

    All tokens of either side: a teacher may have hundreds of times as many as the student.
    """
    width = max(own.logits.shape[1], values.shape[1])
    return float(np.log(4 * width / np.finfo(own.logits.dtype).eps))


def _against_all(
    own: Softmax, theirs: Ranked, probs: Floats, close: CloseCalls
) -> tuple[Floats, Floats]:
    """Sum [n] of the excess over all ranks, and the gradient [n, V] of its double."""
    ahead, theirs_ahead = compare(
        Ranked(own.logits, theirs.reach, theirs.number), theirs, close.recheck
    )
    members = ahead.astype(own.probs.dtype)
    mass = np.vecdot(members, own.probs)[:, None] / own.total
    excess = np.vecdot(theirs_ahead.astype(probs.dtype), probs) - mass[:, 0]
    np.subtract(mass, members, out=members)
    members *= own.probs
    members *= 2 / own.total
    return excess, members


def _against_few(own: Softmax, log_probs: Floats, close: CloseCalls) -> tuple[Floats, Floats]:
    """The same, from the student's largest logits alone: at later ranks it is ahead."""
    largest, columns = leading(own.logits, log_probs.shape[1])
    values = log_probs + np.log(own.total)
    ahead = ~(values <= largest)  # so that NaN is not lost
    rows, ranks = np.indices(ahead.shape).reshape(2, -1)
    close.recheck(
        ahead.reshape(-1), rows, columns.reshape(-1), ranks, largest.reshape(-1), values.reshape(-1)
    )
    probs = np.where(ahead, np.exp(largest) / own.total, 0)
    mass = probs.sum(axis=-1, keepdims=True)
    excess = np.where(ahead, np.exp(log_probs), 0).sum(axis=-1) - mass[:, 0]
    gradient = own.probs * (2 * mass / own.total)
    rows, ranks = np.nonzero(ahead & (largest > -np.inf))
    gradient[rows, columns[rows, ranks]] -= 2 * probs[rows, ranks]
    return excess, gradient
