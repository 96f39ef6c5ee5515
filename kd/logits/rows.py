"""Answers on their way into a store and out of it: ragged tensors of several rows, and of one."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kd.errors import ArtifactError
from kd.logits.selection import ID_BITS, Ints

ROUNDING = 2.0**-17  # nats by which float32 arithmetic may be wrong about a probability

Array = NDArray[Any]


@dataclass(frozen=True)
class AnswerBatch:
    """The answers of R rows, end to end: M tokens."""

    ids: Sequence[str]  # [R]
    lengths: Sequence[int]  # [R]
    tokens: Tensor  # [M]: the answers themselves, in the teacher's tokens
    ends: Tensor  # [M]: byte of the answer's text at which each of them ends

    def check(self, logits: Tensor) -> None:
        """Refuse what cannot be the logits [M, V] of these answers.

        Raises:
            ArtifactError: shapes do not fit, a logit is NaN or +inf, or there are too many tokens.
        """
        of_row = f"row '{self.ids[0]}'" if len(self.ids) == 1 else f"{len(self.ids)} rows"
        if logits.ndim != 2 or not len(logits) == len(self.tokens) == len(self.ends):
            raise ArtifactError(
                f"{of_row}: {len(self.tokens)} answer tokens, but logits of shape "
                f"{tuple(logits.shape)} and {len(self.ends)} ends: pass one row of logits and one "
                "end per answer token."
            )
        if len(self.ids) != len(self.lengths) or sum(self.lengths) != len(self.tokens):
            raise ArtifactError(
                f"{of_row}: {len(self.lengths)} lengths that add up to {sum(self.lengths)} of "
                f"{len(self.tokens)} answer tokens: give the number of tokens of each row."
            )
        if len(self.tokens) and not 0 <= self.tokens.min() <= self.tokens.max() < logits.shape[-1]:
            raise ArtifactError(
                f"{of_row}: an answer token is not among the {logits.shape[-1]} of the logits: "
                "encode answers with the teacher's own tokenizer."
            )
        if logits.shape[-1] > 1 << ID_BITS:
            raise ArtifactError(
                f"{of_row}: logits over {logits.shape[-1]} tokens; a store holds teachers of up "
                f"to {1 << ID_BITS}."
            )
        sound = logits.amax(dim=-1).isfinite()  # not so for NaN, +inf and nothing but -inf
        if not sound.all():
            place = int((~sound).nonzero()[0])
            row = int(np.searchsorted(np.cumsum(self.lengths), place, side="right"))
            raise ArtifactError(
                f"row '{self.ids[row]}': the teacher's logits for answer token "
                f"{place - sum(self.lengths[:row])} are not finite: load the teacher in float32 "
                "or leave the row out."
            )


@dataclass(frozen=True)
class StoredRows:
    """What is stored of the answers of R rows, end to end: M tokens, E entries."""

    ids: list[str]  # [R]
    lengths: Ints  # [R]: tokens of each row
    tokens: Array  # [M]
    own: Array  # [M] float32: log-probabilities of these
    ends: Array  # [M]
    counts: Ints  # [M]: entries of each token
    kept: Array  # [E]: ids of kept tokens, likeliest first
    log_probs: Array  # [E] float64
    dropped: Array  # [M, 1 + temperatures] float64: mass of what was not kept, rounded up
    entropies: Array | None = None  # [M] float32, where tokens were drawn


@dataclass(frozen=True)
class TeacherRow:
    """The distributions with which a teacher predicted the T tokens of one answer.

    Ragged: the entries of token t are those from `offsets[t]` up to `offsets[t + 1]`. A row that
    was drawn (`kd.logits.drawing`) holds each drawn token once, its share of the draws as its
    probability.
    """

    id: str
    token_ids: Tensor | None  # [T] int32: the answer itself, in the teacher's tokens
    token_log_probs: Tensor  # [T] float32: what the teacher gave to these, kept or not
    ends: Tensor  # [T] int32: byte of the answer's text at which each of them ends
    offsets: Tensor  # [T + 1] int64
    ids: Tensor | None  # [E] int32: kept tokens, likeliest first; None if ids are not stored
    log_probs: Tensor  # [E] float32
    dropped: Tensor  # [T, 1 + temperatures] float64: mass of what was not kept, rounded up
    vocabulary: int
    log_errors: Tensor | None = None  # [T] float32: nats by which log_probs may be off
    dropped_error: float = 0.0  # nats by which log-odds of dropped masses may be too large
    temperatures: tuple[float, ...] = ()  # of the further columns of `dropped`
    draws: int = 0  # so many tokens were drawn for each of the T; `log_probs` are their shares
    entropies: Tensor | None = None  # [T] float32: of whole distributions, where tokens are drawn

    def __len__(self) -> int:
        return len(self.token_log_probs)


def exact_row(rows: StoredRows, vocabulary: int, temperatures: Sequence[float] = ()) -> TeacherRow:
    """The only row of `rows`, whose tokens were kept, as exact as float32 is."""
    return TeacherRow(
        id=rows.ids[0],
        token_ids=tensor(rows.tokens, np.int32),
        token_log_probs=tensor(rows.own, np.float32),
        ends=tensor(rows.ends, np.int32),
        offsets=offsets(rows.counts),
        ids=tensor(rows.kept, np.int32),
        log_probs=tensor(rows.log_probs, np.float32),
        dropped=tensor(rows.dropped, np.float64),
        vocabulary=vocabulary,
        log_errors=torch.full((len(rows.counts),), ROUNDING),
        dropped_error=2 * ROUNDING,
        temperatures=tuple(temperatures),
    )


def offsets(counts: Ints) -> Tensor:
    """Where the entries of each token begin, and where the last ones end, [T + 1]."""
    return torch.from_numpy(np.concatenate([[0], counts.cumsum()]))


def tensor(array: Array, kind: type[np.generic]) -> Tensor:
    """A copy of `array`, of another type."""
    return torch.from_numpy(np.array(array, dtype=kind))
