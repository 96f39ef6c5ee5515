"""Losses on the target tokens alone: the teacher enters through the text it wrote."""

import torch
from torch import Tensor

from kd.losses.declaration import loss


@loss(
    "cross_entropy",
    family="likelihood",
    same_vocabulary=False,
    truncation="unaffected",
    formula=r"-\ln q_y",
    source="Kim and Rush, arXiv 1606.07947 (sequence-level distillation)",
)
def cross_entropy(student: Tensor, targets: Tensor) -> Tensor:
    """Negative log-likelihood of the student's target tokens, in nats; end-of-text included."""
    return torch.nn.functional.cross_entropy(student, targets, reduction="none")
