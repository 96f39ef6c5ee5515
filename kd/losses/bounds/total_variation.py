"""Bound of `kd.losses.total_variation`."""

import torch
from torch import Tensor

from kd.losses.bounds.storage import storage_error
from kd.losses.probabilities import common_log_probs
from kd.losses.teacher import TopKRows


def total_variation(student: Tensor, teacher: TopKRows) -> Tensor:
    """min(d, Q), Q being the student's mass on the dropped tokens, and what storing adds.

    The first part is proved in `kd.losses.total_variation`. For the second, g = |p - q| / 2 has
    slopes of 1/2 at most.
    """
    log_q, _ = common_log_probs(student, teacher)
    stored = storage_error(teacher, torch.full_like(log_q, 0.5))
    return stored + torch.minimum(teacher.dropped, log_q[:, -1].exp())
