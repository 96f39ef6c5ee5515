"""What stored logits leave open about the loss of a batch, row by row."""

import importlib
import inspect
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from kd.losses.catalogue import LossInfo
from kd.losses.chunked import parts
from kd.losses.rows import AlignedBatch
from kd.losses.teacher import TeacherLogits, TopKRows


@torch.no_grad()
def error_bounds(info: LossInfo, options: Mapping[str, Any], batch: AlignedBatch) -> Tensor | None:
    """Upper bounds [N] of |stored - dense| for each value of a loss; None where there are none.

    Args:
        info: the loss.
        options: its own options.
        batch: the batch that it is evaluated on, aligned (`DistillationLoss.align`).
    """
    bound = row_bounds(info, options, batch)
    return None if bound is None else _by_part(bound, batch)


def row_bounds(
    info: LossInfo, options: Mapping[str, Any], batch: AlignedBatch
) -> Callable[[AlignedBatch], Tensor] | None:
    """What gives the bounds [n] of a part of `batch`; None where there are none."""
    stored = isinstance(batch.other, TeacherLogits)
    if not info.certified_under(options, batch.teacher_temperature if stored else 1.0):
        return None
    if info.bound is None or not isinstance(batch.other, TeacherLogits):
        return _nothing
    if batch.other.draws:
        return None
    bound = getattr(importlib.import_module(info.bound), info.name)
    return _of_parts(bound, options)


def row_variances(batch: AlignedBatch) -> Callable[[AlignedBatch], Tensor] | None:
    """What gives the variances [n] of a part of `batch`; None where no tokens were drawn."""
    drawn = isinstance(batch.other, TeacherLogits) and batch.other.draws > 0
    return _of_parts(_variance, {}) if drawn else None


@torch.no_grad()
def draw_variances(batch: AlignedBatch) -> Tensor | None:
    """Variances [N] of forward KL on drawn tokens, estimated; None where none were drawn.

    Of n draws v the value is the mean of -ln q_v, less a constant. Its variance is that of one
    draw, estimated without bias from all of them, over n. The values of rows are independent.
    """
    variance = row_variances(batch)
    return None if variance is None else _by_part(variance, batch)


def _by_part(function: Callable[[AlignedBatch], Tensor], batch: AlignedBatch) -> Tensor:
    found = [function(part) for part in parts(batch)]
    return torch.cat(found) if found else _nothing(batch)


def _nothing(part: AlignedBatch) -> Tensor:
    return torch.zeros(len(part.sequence), dtype=part.dtype, device=part.sequence.device)


def _of_parts(
    function: Callable[..., Tensor], options: Mapping[str, Any]
) -> Callable[[AlignedBatch], Tensor]:
    """The function of what it needs as one of a part."""
    parameters = inspect.signature(function).parameters.values()
    needs = [each.name for each in parameters if each.kind is not each.KEYWORD_ONLY]
    known = {each.name for each in parameters if each.kind is each.KEYWORD_ONLY}
    chosen = {name: value for name, value in options.items() if name in known}
    return lambda part: function(**{need: getattr(part, need) for need in needs}, **chosen)


def _variance(student: Tensor, teacher: TopKRows) -> Tensor:
    shares = teacher.log_probs.exp()
    surprise = -torch.log_softmax(student, dim=-1).gather(-1, teacher.ids)
    surprise = surprise.masked_fill(shares == 0, 0.0)
    mean = (shares * surprise).sum(dim=-1, keepdim=True)
    return (shares * (surprise - mean).square()).sum(dim=-1) / (teacher.draws - 1)
