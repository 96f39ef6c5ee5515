"""Kernels of divergences that are sums over tokens, on dense and on stored teachers.

With D = sum over outcomes of t(ln p, ln q) and s the derivative of t in its second argument,
the gradient in the logits is s - q * sum(s). A kernel of this kind states t and s; all else is
common to all of them, and is here.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from kd.losses.kernels import Evaluated
from kd.losses.kernels.softmax import Floats, Softmax, without_padding
from kd.losses.teacher import Teacher, TopKRows


@dataclass
class Pair:
    """Both sides of n rows over the same M outcomes, each [n, M], for the taking.

    All logarithms are finite. An outcome that both sides exclude has probability 0 and logarithm 0
    on both.
    """

    log_p: Floats
    log_q: Floats
    p: Floats
    q: Floats


Terms = Callable[[Pair], tuple[Floats, Floats] | None]
"""Values [n] and slopes s [n, M]; a multiple of q in a row of slopes makes no difference.

It may overwrite the pair. None where the precision would not do, before anything is written.
"""


def separable(student: Tensor, teacher: Teacher, terms: Terms) -> Evaluated | None:
    """Values and gradients of the divergence of `terms`; None to leave the rows to autograd."""
    if student.device.type != "cpu":
        return None
    rows = student.detach().numpy()
    if isinstance(teacher, TopKRows):
        found = _stored(rows, teacher, terms)
    else:
        found = _dense(rows, teacher.detach().numpy(), terms)
    return None if found is None else (torch.from_numpy(found[0]), torch.from_numpy(found[1]))


def _dense(student: Floats, teacher: Floats, terms: Terms) -> tuple[Floats, Floats] | None:
    possible = _possible_columns(student, teacher)
    if possible is None:
        return None
    q, p = (Softmax.of(side[:, :possible]).normalised() for side in (student, teacher))
    found = terms(Pair(p.logits, q.logits, p.probs, q.probs))
    if found is None:
        return None
    values, slopes = found
    slopes -= np.multiply(q.probs, slopes.sum(axis=-1, keepdims=True), out=q.probs)
    padding = student.shape[1] - possible
    return values, np.pad(slopes, ((0, 0), (0, padding))) if padding else slopes


def _possible_columns(student: Floats, teacher: Floats) -> int | None:
    """How many columns there are before a padding of -inf on both sides; None if more is -inf."""
    if np.isfinite(student.min()) and np.isfinite(teacher.min()):
        return int(student.shape[1])
    excluded = (student == -np.inf) | (teacher == -np.inf)
    possible = int(np.flatnonzero(~excluded.all(axis=0)).max(initial=-1)) + 1
    padding = np.maximum(student[:, possible:], teacher[:, possible:])
    if excluded[:, :possible].any() or (padding > -np.inf).any():
        return None
    return possible


def _stored(student: Floats, teacher: TopKRows, terms: Terms) -> tuple[Floats, Floats] | None:
    log_p, dropped = without_padding(teacher.log_probs.numpy()), teacher.dropped.numpy()[:, None]
    padding = log_p == -np.inf
    ids = np.where(padding, teacher.ids[:, :1].numpy(), teacher.ids.numpy()[:, : log_p.shape[1]])
    own = Softmax.of(student)
    known = np.take_along_axis(own.logits, ids, -1)
    stored = np.take_along_axis(own.probs, ids, -1) / own.total
    np.put_along_axis(own.probs, ids, 0, -1)
    # A sum over the other tokens themselves: 1 - sum(stored) would cancel where it matters.
    others = own.probs.sum(axis=-1, keepdims=True)
    nothing = (others == 0) & (dropped == 0)
    if not (_sound(others) & _sound(dropped) | nothing).all() or (known == -np.inf).any():
        return None
    absent = np.concatenate([padding, nothing], axis=-1)
    with np.errstate(divide="ignore"):  # of what is absent
        log_p = np.concatenate([log_p, np.log(dropped)], axis=-1)
        log_q = np.concatenate([known, np.log(others)], axis=-1) - np.log(own.total)
    log_p[absent], log_q[absent] = 0, 0
    p, q = np.exp(log_p), np.concatenate([stored, others / own.total], axis=-1)
    p[absent], q[absent] = 0, 0
    found = terms(Pair(log_p, log_q, p, q.copy()))
    if found is None:
        return None
    values, slopes = found
    total = slopes.sum(axis=-1, keepdims=True)
    # The slope of the rest is shared out among its tokens as their probability is.
    share = slopes[:, -1:] / np.where(nothing, 1, others) - total / own.total
    of_stored = slopes[:, :-1] - q[:, :-1] * total
    gradient = np.multiply(own.probs, share, out=own.probs)
    np.put_along_axis(gradient, ids, np.where(padding, of_stored[:, :1], of_stored), -1)
    return values, gradient


def _sound(mass: Floats) -> np.ndarray:
    """Whether the logarithm of a mass is precise: subnormal numbers have lost digits."""
    return mass >= np.finfo(mass.dtype).tiny
