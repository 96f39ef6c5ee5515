"""What training says of its stored logits, batch by batch.

A bound needs about as much of the student as the loss does and, without a kernel of its own, takes
up to three times as long. So it is computed at some steps only (`training.certificate_steps`), or
beside the loss, on the same rows (`Certificate.beside`).
"""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from kd.losses.bounds.evaluation import row_bounds, row_variances
from kd.losses.chunked import Evaluate, parts
from kd.losses.distillation import DistillationLoss
from kd.losses.rows import AlignedBatch


def exactness(
    loss: DistillationLoss, options: Mapping[str, Any], batch: AlignedBatch
) -> dict[str, float]:
    """How far the loss of a batch may be from that on the teacher's whole distributions.

    Args:
        loss: a loss with its conventions.
        options: its own options.
        batch: the batch, aligned by it (`DistillationLoss.align`).

    Returns:
        `logit_error_mean`, an upper bound of the error of the batch's loss: the mean of the rows'
        bounds, as its reduction has it; and `logit_error_max`, the largest of them. Where some
        are infinite these are, too, and `logit_error_infinite` counts them. Of drawn tokens
        instead `logit_error_std`, the standard deviation that drawing adds to the loss, estimated.
        Nothing where the loss has no bound.
    """
    certificate = Certificate(loss, options, batch)
    for part in parts(batch):
        certificate.add(part)
    return certificate.values()


class Certificate:
    """`exactness`, part by part, in the order of the batch."""

    def __init__(
        self, loss: DistillationLoss, options: Mapping[str, Any], batch: AlignedBatch
    ) -> None:
        self._weights = loss.weights(batch) if len(batch.sequence) else None
        self._scale = loss.scale
        variances = row_variances(batch)
        self._drawn = variances is not None
        self._of_part = variances or row_bounds(loss.info, options, batch)
        self._found: list[Tensor] = []

    @torch.no_grad()
    def add(self, part: AlignedBatch) -> None:
        """Take in the rows of a part."""
        if self._of_part is not None:
            self._found.append(self._of_part(part))

    def beside(self, evaluate: Evaluate) -> Evaluate:
        """What evaluates a loss, and on the way adds each part that it is given."""

        def both(part: AlignedBatch, gradient: bool) -> tuple[Tensor, Tensor | None]:
            self.add(part)
            return evaluate(part, gradient)

        return both

    @torch.no_grad()
    def values(self) -> dict[str, float]:
        """What `exactness` returns, of all that was added."""
        if self._weights is None or not self._found:
            return {}
        rows = torch.cat(self._found)
        if self._drawn:
            return {"logit_error_std": math.sqrt((self._weights.square() * rows).sum().item())}
        found = {
            "logit_error_mean": (self._weights * rows).sum().item(),
            "logit_error_max": (self._scale * rows.max()).item(),
        }
        infinite = int(rows.isinf().sum())
        return found | ({"logit_error_infinite": infinite} if infinite else {})
