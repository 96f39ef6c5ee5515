"""What the variants of multi-level optimal transport share."""

from dataclasses import dataclass

import torch
from torch import Tensor

from kd.losses.teacher import Teacher, TopKRows

ENTROPY = 0.1  # weight of the plan's entropy


@dataclass(frozen=True)
class Weights:
    """How many columns are kept, and what the second and the third term count."""

    top_k: int
    log: float
    sinkhorn: float


def transport_shares(teacher: Tensor, student: Tensor, iterations: int) -> Tensor:
    """What each of the student's rows [T, K] has of the Sinkhorn distance to the teacher's, [T].

    Costs are L1 distances of rows. The plan is exp(-costs / 0.1) after `iterations`
    normalisations of its rows (the teacher's) and then columns to 1, differentiated through.
    """
    costs = torch.cdist(teacher, student, p=1)
    log_plan = -costs / ENTROPY
    for _ in range(iterations):
        log_plan = log_plan.log_softmax(dim=1).log_softmax(dim=0)
    return (log_plan.exp() * costs).sum(dim=0)


def teacher_log_probs(teacher: Teacher) -> Tensor:
    """Log-probabilities [M, C] of all tokens, or of those that any of M top-k rows stores.

    What a row does not store is -inf there.
    """
    if not isinstance(teacher, TopKRows):
        return teacher.log_softmax(dim=-1)
    tokens, columns = torch.unique(teacher.ids, return_inverse=True)
    nothing = teacher.log_probs.new_full((len(columns), len(tokens)), -torch.inf)
    # The larger one, since padding (-inf) may have the id of a stored token.
    return nothing.scatter_reduce(-1, columns, teacher.log_probs, "amax")
