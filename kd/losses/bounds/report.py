"""What training says of its stored logits, batch by batch."""

import math
from collections.abc import Mapping
from typing import Any

import torch

from kd.losses.bounds.evaluation import draw_variances, error_bounds
from kd.losses.distillation import DistillationLoss
from kd.losses.rows import AlignedBatch


@torch.no_grad()
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
    if not len(batch.sequence):
        return {}
    weights = loss.weights(batch)
    variances = draw_variances(batch)
    if variances is not None:
        return {"logit_error_std": math.sqrt((weights.square() * variances).sum().item())}
    bounds = error_bounds(loss.info, options, batch)
    if bounds is None:
        return {}
    found = {
        "logit_error_mean": (weights * bounds).sum().item(),
        "logit_error_max": (loss.scale * bounds.max()).item(),
    }
    infinite = int(bounds.isinf().sum())
    return found | ({"logit_error_infinite": infinite} if infinite else {})
