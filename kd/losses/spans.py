"""What both sides give to the tokens of aligned spans of text, as chain rules of probabilities."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor


@dataclass(frozen=True)
class SpanLogProbs:
    """What one side gives to its own tokens of N aligned spans, as log-probabilities.

    They are computed when they are asked for, and for the tokens that are asked for: where all
    spans are single tokens, `before` and `chained` cost nothing.
    """

    log_probs: Callable[[Tensor], Tensor]  # of the given answer tokens [C], as [C]
    first: Tensor  # [N] int64: place of the span's first token among all answer tokens
    further: Tensor  # [N] int64: how many more tokens the span has
    dtype: torch.dtype  # of what `log_probs` gives
    # Nats by which `log_probs` may be off, of the given answer tokens [C], as [C]; None: exact.
    errors: Callable[[Tensor], Tensor] | None = None

    @property
    def tokens(self) -> Tensor:
        """How many tokens each span has, [N]."""
        return self.further + 1

    @cached_property
    def _total_further(self) -> int:
        return int(self.further.sum())

    @cached_property
    def before(self) -> Tensor:
        """Sum over all tokens but the last, [N]; 0 for single tokens."""
        return self._sum_before(self.log_probs)

    @cached_property
    def before_error(self) -> Tensor:
        """Nats by which `before` may be off, [N]: the sum of its terms' errors."""
        return self._sum_before(self.errors)

    def _sum_before(self, values: Callable[[Tensor], Tensor] | None) -> Tensor:
        """Sum over all tokens but the last, [N]; None is 0 everywhere."""
        if values is None or self._total_further == 0:
            return torch.zeros(len(self.first), dtype=self.dtype, device=self.first.device)
        span = torch.repeat_interleave(self.further)  # [C]: which span each token is from
        start = self.further.cumsum(0) - self.further
        place = torch.arange(self._total_further, device=span.device) - start[span]
        own = values(self.first[span] + place)
        return own.new_zeros(len(self.first)).index_add(0, span, own)

    @property
    def mass(self) -> Tensor:
        """Probability of all tokens but the last, [N]: what a chained row sums up to."""
        return self.before.exp()

    def chained(self, probs: Tensor) -> Tensor:
        """Probabilities [N, V] of the last token times those of the tokens before it.

        By the chain rule, entry v is the probability of the whole span if its last token were
        v. Rows of single tokens come back as they are.
        """
        return probs if self._total_further == 0 else probs * self.before.exp()[:, None]

    @cached_property
    def whole(self) -> Tensor:
        """Sum over all tokens, [N]."""
        return self.before + self.log_probs(self.first + self.further)


@dataclass(frozen=True)
class Spans:
    """Both sides' log-probabilities of aligned spans, at the loss's temperatures."""

    student: SpanLogProbs
    teacher: SpanLogProbs
