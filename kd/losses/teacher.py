"""The teacher's next-token distributions when only the top-k of each is known."""

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from kd.alignment.pairs import Alignment
from kd.errors import LossError
from kd.losses.selection import select_rows


@dataclass(frozen=True)
class TeacherLogits:
    """A padded batch of truncated distributions, one for each of the teacher's answer tokens.

    Position t is the t-th answer token, so neither labels nor a shift apply. Of each
    distribution the K likeliest tokens are known, in descending order; `dropped` is the
    probability of all others together. Padding has log-probability -inf.
    """

    ids: Tensor  # [B, T, K] int64
    log_probs: Tensor  # [B, T, K], at temperature 1
    dropped: Tensor  # [B, T]
    lengths: Tensor  # [B] int64: answer tokens of each sequence
    vocabulary: int  # tokens of the teacher's whole vocabulary
    tokens: Tensor | None = None  # [B, T] int64: the teacher's own answer tokens
    token_log_probs: Tensor | None = None  # [B, T]: what it gave to them, at temperature 1
    token_ends: Tensor | None = None  # [B, T] int64: byte of the answer's text where each ends

    def to(self, device: torch.device | str) -> "TeacherLogits":
        """The same batch on `device`."""
        moved: dict[str, Any] = {
            name: value.to(device) for name, value in vars(self).items() if torch.is_tensor(value)
        }
        return replace(self, **moved)

    @property
    def ends(self) -> Tensor | None:
        """Byte of the answer's text at which each answer token ends, [M]."""
        return None if self.token_ends is None else self.token_ends[self._filled]

    def own_tokens(self) -> Tensor:
        """The teacher's own answer tokens, [M].

        Raises:
            LossError: they are not known.
        """
        return self._require("tokens", self.tokens)[self._filled]

    def own_log_probs(self, chosen: Tensor, temperature: float) -> Tensor:
        """Log-probabilities [C] of the own answer tokens `chosen` [C], at `temperature`.

        Raises:
            LossError: they are not known, or the temperature is not 1 and mass was dropped.
        """
        own = self._require("token_log_probs", self.token_log_probs)[self._filled][chosen]
        if temperature == 1.0:
            return own
        rows = self.all_rows()
        rows.tempered(temperature)  # refuses truncated rows
        return own / temperature - (rows.log_probs[chosen] / temperature).logsumexp(dim=-1)

    def all_rows(self) -> "TopKRows":
        """The distributions of all M answer tokens."""
        kept = self._filled
        log_probs = self.log_probs.detach()[kept]
        return TopKRows(self.ids[kept], log_probs, self.dropped[kept], self.vocabulary)

    @property
    def _filled(self) -> Tensor:
        """Where there is a token and not padding, [B, T]."""
        positions = torch.arange(self.dropped.shape[1], device=self.lengths.device)
        return positions < self.lengths[:, None]

    def _require(self, name: str, value: Tensor | None) -> Tensor:
        if value is None:
            raise LossError(f"this loss reads TeacherLogits.{name}, which was not given.")
        return value

    def rows(self, pairs: Alignment) -> "TopKRows":
        """The distributions of the teacher's tokens in `pairs`."""
        return TopKRows(
            ids=select_rows(self.ids, pairs.sequence, pairs.teacher),
            log_probs=select_rows(self.log_probs.detach(), pairs.sequence, pairs.teacher),
            dropped=self.dropped[pairs.sequence, pairs.teacher],
            vocabulary=self.vocabulary,
        )


@dataclass(frozen=True)
class TopKRows:
    """Truncated distributions of N aligned answer tokens, padded like `TeacherLogits`."""

    ids: Tensor  # [N, K] int64
    log_probs: Tensor  # [N, K]
    dropped: Tensor  # [N]
    vocabulary: int

    def cast(self, dtype: torch.dtype) -> "TopKRows":
        """The same rows with probabilities of type `dtype`."""
        return TopKRows(self.ids, self.log_probs.to(dtype), self.dropped.to(dtype), self.vocabulary)

    def tempered(self, temperature: float) -> "TopKRows":
        """The rows at another temperature, which only complete distributions allow.

        Raises:
            LossError: probability mass was dropped; how it is spread over the missing tokens
                decides the normalising constant, and that is not known.
        """
        if temperature == 1.0:
            return self
        truncated = int((self.dropped > 0).sum())
        if truncated:
            raise LossError(
                f"temperature {temperature} needs the teacher's whole distributions, but "
                f"{truncated} of {len(self.dropped)} are truncated: use 'temperature: 1', or "
                "extract with 'logits: {epsilon: 0}' and no cap."
            )
        log_probs = torch.log_softmax(self.log_probs / temperature, dim=-1)
        return TopKRows(self.ids, log_probs, self.dropped, self.vocabulary)


Teacher = Tensor | TopKRows
"""What a loss is given of the teacher: logits [N, V], or the top-k of each distribution."""
