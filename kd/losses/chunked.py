"""Losses evaluated a few rows at a time, their gradient written on the way forward.

A row of logits is as wide as a vocabulary, and a loss needs several copies of it: its
softmax, the teacher's, products, what autograd keeps. Here these copies exist for one chunk
of rows at a time, small enough for the cache; what remains is the gradient itself. Only the
rows that predict answer tokens are ever touched, prompt and padding are not even written.
"""

import mmap
import sys
from collections.abc import Callable, Iterator
from functools import cache

import numpy as np
import torch
from torch import Tensor

from kd.errors import LossError
from kd.losses.rows import AlignedBatch
from kd.losses.selection import adjacent_rows

# Of one copy of the rows. On a CPU some copies fit into a core's cache; a GPU is only busy with as
# many rows as it has time to be launched for.
CHUNK_BYTES = 1 << 20
GPU_CHUNK_BYTES = 256 << 20
LARGE_BYTES = 32 << 20  # of a gradient whose untouched pages are worth asking the system for

Evaluate = Callable[[AlignedBatch, bool], tuple[Tensor, Tensor | None]]
"""Values [n] of a part of a batch and, if asked for, their gradient [n, V] in its rows."""

Kernel = Callable[..., tuple[Tensor, Tensor] | None]
"""Values [n] and gradient [n, V] from what a loss needs; None to leave it to the loss itself."""


def weighted_sum(batch: AlignedBatch, weights: Tensor, evaluate: Evaluate) -> Tensor:
    """Sum of weights [N] times values of all rows, a scalar; its gradient is `evaluate`'s."""
    total: Tensor = _WeightedSum.apply(  # type: ignore[no-untyped-call]
        batch.logits, batch, weights, evaluate
    )
    return total


def by_autograd(body: Callable[..., Tensor], needs: tuple[str, ...]) -> Evaluate:
    """Evaluate a loss by autograd, which then keeps its copies for this part alone."""

    def evaluate(part: AlignedBatch, gradient: bool) -> tuple[Tensor, Tensor | None]:
        given = {need: getattr(part, need) for need in needs}
        if not gradient:
            return body(**given), None
        rows = part.student.detach().requires_grad_()
        with torch.enable_grad():
            values = body(**given | {"student": rows})
            _require_one_value_a_row(values, rows)
            (found,) = torch.autograd.grad(values.sum(), rows)
        return values.detach(), found

    return evaluate


def _require_one_value_a_row(values: Tensor, rows: Tensor) -> None:
    if values.shape != rows.shape[:1]:
        raise LossError(
            f"the loss gave values of shape {tuple(values.shape)} for {len(rows)} rows. Return one "
            'value a row, or declare rows="batch" if it is defined on whole batches only.'
        )


def by_kernel(kernel: Kernel, body: Callable[..., Tensor], needs: tuple[str, ...]) -> Evaluate:
    """Evaluate a loss by its kernel, and by autograd what the kernel leaves to it."""
    plain = by_autograd(body, needs)

    def evaluate(part: AlignedBatch, gradient: bool) -> tuple[Tensor, Tensor | None]:
        return kernel(**{need: getattr(part, need) for need in needs}) or plain(part, gradient)

    return evaluate


class _WeightedSum(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: torch.autograd.function.FunctionCtx,
        logits: Tensor,
        batch: AlignedBatch,
        weights: Tensor,
        evaluate: Evaluate,
    ) -> Tensor:
        wanted = ctx.needs_input_grad[0]  # type: ignore[attr-defined]
        ctx.recompute = lambda: _evaluate(batch, weights, evaluate, True)[1]  # type: ignore[attr-defined]
        total, ctx.gradient = _evaluate(batch, weights, evaluate, wanted)  # type: ignore[attr-defined]
        return total

    @staticmethod
    def backward(
        ctx: torch.autograd.function.FunctionCtx, upstream: Tensor
    ) -> tuple[Tensor, None, None, None]:
        if torch.is_grad_enabled():  # create_graph: the gradient below has no graph of its own
            raise LossError("losses have first derivatives only: do not pass create_graph=True.")
        # Handed out, not kept: a second reference would make autograd copy all of it. A second
        # pass through the same graph computes it anew.
        found = ctx.gradient  # type: ignore[attr-defined]
        ctx.gradient = None  # type: ignore[attr-defined]
        gradient = found or ctx.recompute()  # type: ignore[attr-defined]
        return gradient.scaled(upstream), None, None, None


class _RowGradient:
    """A dense gradient [B, T, V] of which some rows are not zero."""

    def __init__(self, batch: AlignedBatch) -> None:
        self._batch = batch
        self._dense = _untouched_zeros(batch.logits)

    def put(self, part: AlignedBatch, rows: Tensor, factor: Tensor) -> None:
        """Write `rows` [n, V] times `factor` [n] to the places of a part."""
        view = adjacent_rows(self._dense, *part.places)
        if view is None:
            self._dense[part.places] = rows.mul_(factor[:, None]).to(self._dense.dtype)
        elif view.dtype == rows.dtype:
            torch.mul(rows, factor[:, None], out=view)
        else:
            view.copy_(rows.mul_(factor[:, None]))

    def scaled(self, factor: Tensor) -> Tensor:
        # To look at the factor would make the host wait for a GPU; there it is cheaper to multiply.
        if factor.device.type != "cpu" or factor.item() != 1.0:
            for part in parts(self._batch):
                self._dense[part.places] *= factor.to(self._dense.dtype)
        return self._dense


def _evaluate(
    batch: AlignedBatch, weights: Tensor, evaluate: Evaluate, wanted: bool
) -> tuple[Tensor, _RowGradient | None]:
    _keep_freed_memory()
    total = torch.zeros((), dtype=batch.dtype, device=batch.logits.device)
    gradient = _RowGradient(batch) if wanted else None
    first = 0
    for part in parts(batch):
        weight = weights[first : first + len(part.sequence)].to(batch.dtype)
        first += len(part.sequence)
        values, rows = evaluate(part, wanted)
        total += (values * weight).sum()
        if gradient is not None and rows is not None:
            gradient.put(part, rows, weight / batch.temperature)
    return total, gradient


def parts(batch: AlignedBatch) -> Iterator[AlignedBatch]:
    """The batch, a few rows at a time."""
    rows = rows_at_once(batch)
    for first in range(0, len(batch.sequence), rows):
        yield batch.part(slice(first, first + rows))


def rows_at_once(batch: AlignedBatch) -> int:
    """How many rows are evaluated together."""
    size = torch.finfo(batch.dtype).bits // 8
    # Not the logits' device: those of a fused head are a placeholder without one.
    at_once = CHUNK_BYTES if batch.sequence.device.type == "cpu" else GPU_CHUNK_BYTES
    return max(1, at_once // (size * batch.logits.shape[-1]))


@cache
def _keep_freed_memory() -> None:
    """Let glibc reuse the copies of one chunk for the next one.

    Otherwise it hands them back to the system, and the next chunk waits for as many pages to be
    cleared as it has. It hands back what exceeds twice the largest block that was ever freed, if
    that is no larger than 32 MiB; other allocators do not mind.
    """
    np.empty((32 << 20) - (64 << 10), dtype=np.uint8)


def _untouched_zeros(logits: Tensor) -> Tensor:
    """Zeros like `logits` whose pages take no memory before they are written to, on a CPU."""
    if logits.device.type != "cpu" or logits.dtype not in (torch.float32, torch.float64):
        return torch.zeros_like(logits)
    kind = np.dtype(np.float32 if logits.dtype == torch.float32 else np.float64)
    if logits.numel() * kind.itemsize < LARGE_BYTES or sys.platform == "win32":
        return torch.from_numpy(np.zeros(logits.shape, kind))
    # From the system in small pages: calloc may take and clear a part of the heap, and numpy asks
    # for huge pages, of which four answers touch 8 MiB more. These cost some 3 % of the time.
    area = mmap.mmap(-1, logits.numel() * kind.itemsize, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    return torch.from_numpy(np.frombuffer(area, kind).reshape(logits.shape))
