"""Losses together with the student's output layer, so that its logits never exist as a whole.

Logits are by far the largest tensor of a step: answer tokens times vocabulary, and once more for
their gradient. Here the rows of hidden states that predict an answer token go through the output
layer a few at a time; all losses are evaluated on these logits, their gradient is led back
through the layer at once, and the logits are forgotten (as in Liger Kernel, arXiv 2410.10989).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from kd.errors import LossError
from kd.losses.chunked import Evaluate, rows_at_once
from kd.losses.rows import AlignedBatch

HEAD_ROWS = 64  # that go through the layer together: its weight is read once for all of them
GPU_HEAD_ROWS = 1024


@dataclass(frozen=True)
class Term:
    """A sum over the rows of a batch: of `weights` [N] times the values of a loss."""

    batch: AlignedBatch  # its logits are a placeholder
    weights: Tensor
    evaluate: Evaluate

    @property
    def places(self) -> Tensor:
        """Where its rows are in the hidden states, counted over the whole batch, [N]."""
        sequence, position = self.batch.places
        return sequence * self.batch.logits.shape[1] + position


def placeholder(hidden: Tensor, head: nn.Linear) -> Tensor:
    """Logits [B, T, V] that have a shape and a type, but no memory."""
    return torch.empty(*hidden.shape[:2], head.out_features, dtype=hidden.dtype, device="meta")


def sums_through_head(
    hidden: Tensor, head: nn.Linear, terms: Sequence[Term], factors: Sequence[float]
) -> tuple[Tensor, list[Tensor]]:
    """The sum of `factors` times terms, with a gradient, and the terms, without.

    Args:
        hidden: [B, T, D], as they enter `head`.
        head: the student's output layer.
        terms: they share the batch of `hidden`.
        factors: one a term.
    """
    places = torch.unique(torch.cat([term.places for term in terms]))
    rows = hidden.reshape(-1, hidden.shape[-1])[places]
    located = [
        _Located(term, torch.searchsorted(places, term.places), factor)
        for term, factor in zip(terms, factors, strict=True)
    ]
    # A parameter asks for its gradient in a validation, too.
    wanted = torch.is_grad_enabled()
    total, *values = _ThroughHead.apply(  # type: ignore[no-untyped-call]
        rows, head.weight, head.bias, located, wanted
    )
    return total, list(values)


@dataclass(frozen=True)
class _Located:
    term: Term
    at: Tensor  # [N]: which of the rows of hidden states each row of the term is
    factor: float

    def evaluate(self, logits: Tensor, first: int, gradient: Tensor | None) -> Tensor:
        """The sum over rows whose `logits` [n, V] start at `first`; adds to `gradient` [n, V]."""
        batch = self.term.batch
        total = torch.zeros((), dtype=batch.dtype, device=logits.device)
        within = ((self.at >= first) & (self.at < first + len(logits))).nonzero()[:, 0]
        at_once = rows_at_once(batch)
        for start in range(0, len(within), at_once):
            chosen = within[start : start + at_once]
            local = self.at[chosen] - first
            part = replace(batch.part(chosen), rows=logits[local])
            values, found = self.term.evaluate(part, gradient is not None)
            weights = self.term.weights[chosen].to(batch.dtype)
            total += (values * weights).sum()
            if gradient is not None and found is not None:
                scaled = found.mul_((weights * (self.factor / batch.temperature))[:, None])
                gradient.index_add_(0, local, scaled.to(gradient.dtype))
        return total


@dataclass(frozen=True)
class _Gradients:
    rows: Tensor
    weight: Tensor
    bias: Tensor | None

    def like(self, weight: Tensor, bias: Tensor | None) -> "_Gradients":
        """The same in the types of what they are gradients of."""
        of_bias = None if self.bias is None or bias is None else self.bias.to(bias.dtype)
        return _Gradients(self.rows, self.weight.to(weight.dtype), of_bias)


class _ThroughHead(torch.autograd.Function):
    @staticmethod
    def forward(  # noqa: PLR0917 - by position, as autograd hands them over
        ctx: torch.autograd.function.FunctionCtx,
        rows: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        located: list[_Located],
        wanted: bool,
    ) -> tuple[Tensor, ...]:
        kind = rows.device.type
        autocast = torch.is_autocast_enabled(kind)
        dtype = torch.get_autocast_dtype(kind) if autocast else weight.dtype

        def compute(wanted: bool) -> tuple[list[Tensor], _Gradients | None]:
            with torch.autocast(kind, enabled=False):
                return _compute(rows, weight, bias, located, dtype, wanted)

        values, gradients = compute(wanted)
        ctx.gradients, ctx.compute = gradients, compute  # type: ignore[attr-defined]
        total = torch.stack(
            [one.factor * value for one, value in zip(located, values, strict=True)]
        ).sum()
        ctx.mark_non_differentiable(*values)
        return total, *values

    @staticmethod
    def backward(
        ctx: torch.autograd.function.FunctionCtx, upstream: Tensor, *_: Tensor
    ) -> tuple[Tensor | None, ...]:
        if torch.is_grad_enabled():  # create_graph
            raise LossError("losses have first derivatives only: do not pass create_graph=True.")
        # Handed out, not kept: see `kd.losses.chunked`.
        found = ctx.gradients or ctx.compute(True)[1]  # type: ignore[attr-defined]
        ctx.gradients = None  # type: ignore[attr-defined]
        bias = None if found.bias is None else found.bias.mul_(upstream)
        return found.rows.mul_(upstream), found.weight.mul_(upstream), bias, None, None


def _compute(  # noqa: PLR0917 - what autograd hands over, and how
    rows: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    located: list[_Located],
    dtype: torch.dtype,
    wanted: bool,
) -> tuple[list[Tensor], _Gradients | None]:
    """The layer runs in `dtype`, as it would by itself; sums of half precision are in float32."""
    given = rows
    rows, layer = rows.detach().to(dtype), weight.detach().to(dtype)
    offset = None if bias is None else bias.detach().to(dtype)
    totals = [torch.zeros((), dtype=one.term.batch.dtype, device=rows.device) for one in located]
    gradients = None
    if wanted:
        gradients = _Gradients(
            torch.empty_like(given),
            torch.zeros_like(weight, dtype=_wide(weight)),
            None if bias is None else torch.zeros_like(bias, dtype=_wide(bias)),
        )
    step = HEAD_ROWS if rows.device.type == "cpu" else GPU_HEAD_ROWS
    for first in range(0, len(rows), step):
        some = slice(first, first + step)
        logits = nn.functional.linear(rows[some], layer, offset)
        slopes = torch.zeros_like(logits) if wanted else None
        for total, one in zip(totals, located, strict=True):
            total += one.evaluate(logits, first, slopes)
        if gradients is not None and slopes is not None:
            gradients.rows[some] = slopes @ layer
            if gradients.weight.dtype == dtype:
                gradients.weight.addmm_(slopes.T, rows[some])
            else:
                gradients.weight.add_(slopes.T @ rows[some])
            if gradients.bias is not None:
                gradients.bias.add_(slopes.sum(dim=0, dtype=gradients.bias.dtype))
    return totals, gradients if gradients is None else gradients.like(weight, bias)


def _wide(parameter: Tensor) -> torch.dtype:
    return torch.promote_types(parameter.dtype, torch.float32)
