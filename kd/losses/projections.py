"""Learned linear maps between the hidden states of two models, and how they begin."""

import torch
from torch import Tensor, nn


def random_projection(rows: int, columns: int, generator: torch.Generator) -> nn.Parameter:
    """A parameter [rows, columns] whose rows or columns, the fewer of them, are orthonormal."""
    return nn.Parameter(nn.init.orthogonal_(torch.empty(rows, columns), generator=generator))


def logit_projection(goal: Tensor, source: Tensor) -> nn.Parameter:
    """A parameter [Dg, Ds] that keeps logits, as far as a linear map can.

    With output layers `goal` [V, Dg] and `source` [V, Ds] of the same V tokens it is the
    least-squares solution W, of the least norm, of goal @ W = source: hidden states h of the
    source give the logits source @ h, and goal @ (W @ h) is as near to them as can be. Without
    any common token it is 0.

    Source: Zhang et al., arXiv 2504.11426 (initialisation of the projectors).
    """
    goal, source = (side.detach().float().cpu() for side in (goal, source))
    return nn.Parameter(torch.linalg.pinv(goal) @ source)
