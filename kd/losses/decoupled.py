"""Distillation with the target token apart from all others."""

import torch
from torch import Tensor

from kd.losses.declaration import loss
from kd.losses.probabilities import common_log_probs, expectation, log_sum_exp
from kd.losses.teacher import Teacher, TopKRows


@loss(
    "decoupled_kl",
    family="Kullback-Leibler",
    same_vocabulary=True,
    truncation="unbounded",
    formula=(
        r"\alpha \left(p_y \ln \frac{p_y}{q_y} + (1 - p_y) \ln \frac{1 - p_y}{1 - q_y}\right)"
        r" + \beta \sum_{v \ne y} \hat p_v \ln \frac{\hat p_v}{\hat q_v},"
        r" \quad \hat p_v = \frac{p_v}{1 - p_y}"
    ),
    source="Zhao et al., arXiv 2203.08679, eq. 7 (DKD)",
    aliases=("dkd",),
)
def decoupled_kl(
    student: Tensor,
    teacher: Teacher,
    targets: Tensor,
    *,
    target_weight: float = 1.0,
    others_weight: float = 0.5,
) -> Tensor:
    """Forward KL split into the target token against the rest, and the rest within itself.

    With the target y, the first part is the KL divergence of two outcomes, y or not (TCKD),
    the second that of both sides renormalised over all other tokens (NCKD). 0 for identical
    models. `forward_kl` is TCKD + (1 - p_y) NCKD: a certain teacher hides what it knows of the
    other tokens there, and does not here. Where the teacher allows the target only, NCKD is 0.

    Top-k teacher: the tokens beyond the top k are one outcome. Where the target is stored,
    both parts are lower bounds. Where it is not, that outcome takes its place, and the error
    is not known.

    Args:
        student: logits [N, V].
        teacher: logits [N, V], or top-k.
        targets: the target tokens, [N].
        target_weight: alpha, the weight of TCKD.
        others_weight: beta, the weight of NCKD. The paper has 0.5 to 8, by dataset.
    """
    log_q, log_p = common_log_probs(student, teacher)
    target = _outcome(targets, teacher)
    student_parts, teacher_parts = _split(log_q, target), _split(log_p, target)
    of_target = expectation(teacher_parts[0], teacher_parts[0] - student_parts[0])
    of_others = expectation(teacher_parts[1], teacher_parts[1] - student_parts[1])
    return target_weight * of_target + others_weight * of_others


def _outcome(targets: Tensor, teacher: Teacher) -> Tensor:
    """Which of the M outcomes of `common_log_probs` each target token [N] is in, [N, 1]."""
    if not isinstance(teacher, TopKRows):
        return targets[:, None]
    stored = (teacher.ids == targets[:, None]) & (teacher.log_probs > -torch.inf)
    others = stored.new_ones(len(targets), 1)  # the last outcome, if no earlier one
    return torch.cat([stored, others], dim=-1).int().argmax(dim=-1, keepdim=True)


def _split(log_probs: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Log-probabilities of target and rest, [N, 2], and of all within the rest, [N, M]."""
    others = log_probs.scatter(-1, target, -torch.inf)
    rest = log_sum_exp(others)
    within = others - rest.masked_fill(rest == -torch.inf, 0.0)
    return torch.cat([log_probs.gather(-1, target), rest], dim=-1), within
