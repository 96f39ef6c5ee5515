"""The teacher's next-token distributions when only the top-k of each is known."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
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
    has_ids: bool = True  # if not, the r-th likeliest token of each row is called r
    log_errors: Tensor | None = None  # [B, T]: nats by which log_probs may be off; None: exact
    dropped_error: float = 0.0  # nats by which log-odds of dropped masses may be too large
    # [B, T] by temperature, float64: of 1 - d few digits may be left
    dropped_at: Mapping[float, Tensor] = field(default_factory=dict)
    draws: int = 0  # so many tokens were drawn instead; log_probs are their shares
    entropies: Tensor | None = None  # [B, T], of whole distributions, where tokens were drawn

    def to(self, device: torch.device | str) -> "TeacherLogits":
        """The same batch on `device`."""
        moved: dict[str, Any] = {
            name: value.to(device) for name, value in vars(self).items() if torch.is_tensor(value)
        }
        moved["dropped_at"] = {key: value.to(device) for key, value in self.dropped_at.items()}
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
            LossError: they are not known, or not at this temperature.
        """
        own = self._require("token_log_probs", self.token_log_probs)[self._filled][chosen]
        if temperature == 1.0:
            return own
        rows = self.all_rows()
        # p^(1/T) over its sum, which the likeliest token tells; refused where it is not known.
        likeliest = rows.log_probs[chosen, 0], rows.tempered(temperature).log_probs[chosen, 0]
        return own / temperature - (likeliest[0] / temperature - likeliest[1])

    def own_errors(self, chosen: Tensor, temperature: float) -> Tensor:
        """Nats [C] by which `own_log_probs` of the same tokens may be off.

        At temperature 1 they are stored as they are. Otherwise ln p^(1/T) is exact, and the sum
        that it is divided by is known from the stored tokens and the dropped mass.
        """
        rows = self.all_rows()
        if temperature == 1.0:
            return torch.zeros_like(rows.dropped[chosen])
        return rows.normaliser_errors(temperature)[chosen]

    def all_rows(self) -> "TopKRows":
        """The distributions of all M answer tokens."""
        filled = self._filled
        return self._chosen(lambda table: table[filled], lambda values: values[filled])

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
        places = pairs.sequence, pairs.teacher
        return self._chosen(
            lambda table: select_rows(table, *places), lambda values: values[places]
        )

    def _chosen(self, of_tables: "Choose", of_values: "Choose") -> "TopKRows":
        """Some rows, by how they are taken out of [B, T, K] and of [B, T]."""
        return TopKRows(
            ids=of_tables(self.ids),
            log_probs=of_tables(self.log_probs.detach()),
            dropped=of_values(self.dropped),
            vocabulary=self.vocabulary,
            log_errors=None if self.log_errors is None else of_values(self.log_errors),
            dropped_error=self.dropped_error,
            dropped_at={key: of_values(value) for key, value in self.dropped_at.items()},
            draws=self.draws,
            entropies=None if self.entropies is None else of_values(self.entropies),
        )


Choose = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class TopKRows:
    """Truncated distributions of N aligned answer tokens, padded like `TeacherLogits`."""

    ids: Tensor  # [N, K] int64
    log_probs: Tensor  # [N, K]
    dropped: Tensor  # [N]
    vocabulary: int
    log_errors: Tensor | None = None  # [N]: nats by which log_probs may be off; None: exact
    dropped_error: float = 0.0  # nats by which log-odds of dropped masses may be too large
    dropped_at: Mapping[float, Tensor] = field(default_factory=dict)  # [N] float64, by temperature
    draws: int = 0  # so many tokens were drawn instead; log_probs are their shares
    entropies: Tensor | None = None  # [N], of whole distributions, where tokens were drawn

    def cast(self, dtype: torch.dtype) -> "TopKRows":
        """The same rows with probabilities of type `dtype`."""
        return replace(self, log_probs=self.log_probs.to(dtype), dropped=self.dropped.to(dtype))

    def tempered(self, temperature: float) -> "TopKRows":
        """The rows at another temperature T: p^(1/T), with sum 1.

        Complete rows allow every temperature, truncated ones those at which the dropped mass was
        stored: only that tells how much of the sum the missing tokens take.

        Raises:
            LossError: it was not, or the tokens are drawn ones, which know nothing of p^(1/T).
        """
        if temperature == 1.0:
            return self
        if self.draws:
            raise LossError(
                f"temperature {temperature} needs the teacher's whole distributions, but its "
                "tokens are drawn ones: use 'temperature: 1', or extract without 'sampling'."
            )
        dropped = self.dropped_at.get(temperature, self.dropped)
        truncated = int((dropped > 0).sum())
        if truncated and temperature not in self.dropped_at:
            raise LossError(
                f"temperature {temperature} needs the teacher's whole distributions, but "
                f"{truncated} of {len(self.dropped)} are truncated: use 'temperature: 1', or "
                f"extract with 'logits: {{temperatures: [{temperature}]}}' or 'epsilon: 0.0'."
            )
        # The k likeliest of V tokens have at least k / V at every temperature.
        number = (self.log_probs > -torch.inf).sum(dim=-1)
        dropped = torch.minimum(dropped.double(), 1 - number.double() / self.vocabulary)
        left = (-dropped).log1p().to(self.log_probs)  # before digits of 1 - d are lost
        dropped = dropped.to(self.log_probs)
        kept = torch.log_softmax(self.log_probs / temperature, dim=-1)
        return replace(
            self,
            log_probs=kept + left[:, None],
            dropped=dropped,
            log_errors=self._tempered_errors(temperature, dropped),
            dropped_at={},
        )

    def _tempered_errors(self, temperature: float, dropped: Tensor) -> Tensor | None:
        """Errors of ln p^(1/T) and of the sum that normalises it."""
        if self.log_errors is None:
            return None
        return self.log_errors / temperature + self._normaliser_errors(temperature, dropped)

    def normaliser_errors(self, temperature: float) -> Tensor:
        """Nats [N] by which the logarithm of the sum of all p^(1/T) may be off.

        That sum is that of the stored tokens, over 1 - d, d being the mass that is dropped at T.
        """
        return self._normaliser_errors(temperature, self.tempered(temperature).dropped)

    def _normaliser_errors(self, temperature: float, dropped: Tensor) -> Tensor:
        """Of ln(1 - d) the slope in the log-odds of d is -d."""
        if self.log_errors is None:
            return torch.zeros_like(dropped)
        return self.log_errors.to(dropped) / temperature + self.dropped_error * dropped


Teacher = Tensor | TopKRows
"""What a loss is given of the teacher: logits [N, V], or the top-k of each distribution."""
