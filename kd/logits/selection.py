"""Which tokens of next-token distributions are kept: the likeliest, until little mass is left.

No vocabulary is sorted. One pass over the logits leaves the tokens that can possibly be kept; a
histogram of these, by logarithm, leaves hardly more than are; and only these are sorted.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import log

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

CHUNK_ENTRIES = 1 << 20  # logits at a time: what is made of them stays in a core's cache
DEVICE_ENTRIES = 1 << 26  # the same elsewhere than on a CPU, where a call costs more than that
CHUNK_ROWS = 1 << 12  # as many as a sorting key has room for
ID_BITS = 20  # of a token in a sorting key
BINS = 8  # of the histogram, for each nat
DEEPEST = 1 << 10  # the last bin holds all that is less likely

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Selection:
    """What is kept of M distributions. The entries of all rows stand end to end."""

    counts: Ints  # [M]: entries of each row
    ids: Ints  # [E]: likeliest first, of equal ones the smaller id first
    log_probs: Floats  # [E]
    own: Floats  # [M]: log-probability of the token that was asked for
    dropped: Floats  # [M, 1 + temperatures]: mass of what is not kept, at 1 and at these


def select(
    logits: Tensor,
    tokens: Tensor,
    epsilon: float,
    cap: int | None,
    temperatures: Sequence[float] = (),
) -> Selection:
    """Keep of each row the fewest tokens that leave a mass of at most `epsilon`, and at most `cap`.

    Proof that the first pass loses none of them. A token is kept as the k-th likeliest only if
    more than `epsilon` is left before it, which lies on at most V tokens none of which is
    likelier: its probability is more than `epsilon` / V. (The likeliest has at least 1 / V.)

    Args:
        logits: [M, V], of which the largest of each row is finite.
        tokens: [M], whose log-probabilities are wanted, kept or not.
        epsilon: mass that may be dropped; at 0 every possible token is kept.
        cap: number of tokens that may be kept; None for any.
        temperatures: others than 1 at which the mass of what is not kept is wanted.
    """
    entries = CHUNK_ENTRIES if logits.device.type == "cpu" else DEVICE_ENTRIES
    size = min(max(entries // max(logits.shape[-1], 1), 1), CHUNK_ROWS)
    parts = [
        _select(rows, own, epsilon, cap, temperatures)
        for rows, own in zip(torch.split(logits, size), torch.split(tokens, size), strict=True)
    ]
    return Selection(*(np.concatenate(found) for found in zip(*parts, strict=True)))


def _select(
    logits: Tensor, tokens: Tensor, epsilon: float, cap: int | None, temperatures: Sequence[float]
) -> tuple[Ints, Ints, Floats, Floats, Floats]:
    rows, width = logits.shape
    shifted = shift(logits)
    masses = shifted.exp()
    possible = shifted > (log(epsilon / width) if epsilon else -torch.inf)
    if cap is not None and cap < width:
        possible &= shifted >= shifted.topk(cap).values[:, -1:]
    places = possible.view(-1).nonzero()[:, 0]
    found = _Candidates(
        places.cpu().numpy(),
        shifted.view(-1)[places].cpu().numpy(),
        masses.view(-1)[places].double().cpu().numpy(),
        width,
    )
    masses.view(-1)[places] = 0.0
    beyond = masses.sum(dim=-1).double().cpu().numpy()  # small terms only: nothing cancels
    total = np.bincount(found.rows, found.masses, rows) + beyond
    allowed = epsilon * total
    if epsilon:
        found, beyond = _likeliest(found, beyond, allowed)
    ids, values, counts, dropped = _descending(found, beyond, allowed, cap)
    own = shifted.gather(-1, tokens.to(logits.device, torch.int64)[:, None])[:, 0].double()
    kept = np.repeat(np.arange(rows), counts)
    left = [dropped, *(_left_at(t, shifted, kept, ids) for t in temperatures)]
    stays = [np.bincount(kept, np.exp(values / t), rows) for t in (1.0, *temperatures)]
    shift_of = np.log(total)
    return (
        counts,
        ids,
        values - shift_of[kept],
        own.cpu().numpy() - shift_of,
        # Not over the sum of all: of 1 - d nothing would be left where little is kept.
        np.stack([lost / (lost + kept) for lost, kept in zip(left, stays, strict=True)], axis=-1),
    )


def shift(logits: Tensor) -> Tensor:
    """Logits [R, V] less the largest of each row, in float32."""
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    return (logits - logits.amax(dim=-1, keepdim=True)).float()


class _Candidates:
    """Tokens that may be kept: which row they are of, their shifted logits and their masses."""

    def __init__(
        self, places: Ints, values: NDArray[np.float32], masses: Floats, width: int
    ) -> None:
        self.rows, self.ids = np.divmod(places, width)
        self.values = values
        self.masses = masses

    def chosen(self, flags: NDArray[np.bool_]) -> "_Candidates":
        """Those that are flagged."""
        part = object.__new__(_Candidates)
        for name, value in vars(self).items():
            setattr(part, name, value[flags])
        return part


def _likeliest(found: _Candidates, beyond: Floats, allowed: Floats) -> tuple[_Candidates, Floats]:
    """The candidates of the first bins that hold enough, and the mass of all beyond these."""
    depth = np.minimum(np.abs(found.values) * BINS, DEEPEST - 1).astype(np.int64)
    bins = int(depth.max(initial=0)) + 1
    cells = found.rows * bins + depth
    mass = np.bincount(cells, found.masses, len(beyond) * bins).astype(np.float64)
    after = beyond[:, None] + _sum_after(mass.reshape(-1, bins))
    enough = after <= allowed[:, None]
    enough[:, -1] = True  # with a cap, more may be left than is allowed
    last = enough.argmax(axis=-1)
    left = np.take_along_axis(after, last[:, None], -1)[:, 0]
    return found.chosen(depth <= last[found.rows]), left


def _descending(
    found: _Candidates, beyond: Floats, allowed: Floats, cap: int | None
) -> tuple[Ints, Floats, Ints, Floats]:
    """Ids and shifted logits of the kept tokens, how many each row has, and what it drops."""
    # One number sorts by row, then by likelihood, then by id: a float32 without its sign has the
    # order of its bits.
    bits = np.abs(found.values).view(np.uint32).astype(np.uint64)
    order = found.rows.astype(np.uint64) << np.uint64(32 + ID_BITS)
    keys = np.sort(order | (bits << np.uint64(ID_BITS)) | found.ids.astype(np.uint64))
    ids = (keys & np.uint64((1 << ID_BITS) - 1)).astype(np.int64)
    values = -(keys >> np.uint64(ID_BITS)).astype(np.uint32).view(np.float32).astype(np.float64)
    number = np.bincount(found.rows, minlength=len(beyond))
    column = np.arange(len(ids)) - np.repeat(number.cumsum() - number, number)
    masses = np.zeros((len(beyond), number.max(initial=1)))
    masses[found.rows, column] = np.exp(values)
    left = beyond[:, None] + _sum_after(masses)
    counts = np.minimum((left > allowed[:, None]).sum(axis=-1) + 1, number)
    if cap is not None:
        counts = np.minimum(counts, cap)
    kept = column < np.repeat(counts, number)
    return ids[kept], values[kept], counts, np.take_along_axis(left, counts[:, None] - 1, -1)[:, 0]


def _left_at(temperature: float, shifted: Tensor, rows: Ints, ids: Ints) -> Floats:
    """Mass [R], at another temperature, of all tokens but the kept ones, not normalised."""
    masses = (shifted / temperature).exp()
    masses[torch.from_numpy(rows).to(masses.device), torch.from_numpy(ids).to(masses.device)] = 0.0
    left: Floats = masses.sum(dim=-1).double().cpu().numpy()
    return left


def _sum_after(masses: Floats) -> Floats:
    """Sum of what stands after each entry of [R, B].

    From the small end: what is left of 1 would be rounding errors instead of small masses.
    """
    from_here = masses[:, ::-1].cumsum(axis=-1)[:, ::-1]
    return np.pad(from_here[:, 1:], ((0, 0), (0, 1)))
