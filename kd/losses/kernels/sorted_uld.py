"""The kernel of `uld` on any device: a GPU sorts as fast as it counts.

The sums are those of `kd.losses.kernels.uld`, of sorted values. No step of it waits for the device,
and there is no graph. It was run on CPUs only, where `kd.losses.kernels.uld` is faster.
"""

import torch
from torch import Tensor

from kd.losses.kernels import Evaluated
from kd.losses.teacher import Teacher, TopKRows


@torch.no_grad()
def by_sorting(student: Tensor, teacher: Teacher) -> Evaluated:
    """Values [n] and gradients [n, V] of rows of single tokens."""
    probs = student.softmax(dim=-1)
    if isinstance(teacher, TopKRows):
        others, dropped = teacher.log_probs.exp(), teacher.dropped  # descending, 0 on padding
    else:
        others = teacher.softmax(dim=-1).sort(dim=-1, descending=True).values
        dropped = torch.zeros_like(others[:, 0])
    ranks = min(others.shape[1], probs.shape[1])  # at later ones the longer side is ahead
    leading, columns = probs.topk(ranks, dim=-1)
    members = (others[:, :ranks] > leading).to(probs.dtype)
    mass = (members * leading).sum(dim=-1, keepdim=True)
    excess = (others[:, :ranks] - leading).relu().sum(dim=-1) + others[:, ranks:].sum(dim=-1)
    gradient = (2 * mass * probs).scatter_add_(-1, columns, -2 * members * leading)
    return 2 * excess + dropped, gradient
