"""Both Kullback-Leibler divergences, weighted anew for every token of the answer."""

import torch
from torch import Tensor

from kd.losses.declaration import loss
from kd.losses.kl import both_kl
from kd.losses.options import require_known, require_share
from kd.losses.probabilities import common_log_probs, expectation
from kd.losses.teacher import Teacher, TopKRows

HEAD_RULES = ("prefix", "crossing")


@loss(
    "adaptive_kl",
    family="Kullback-Leibler",
    same_vocabulary=True,
    truncation="unbounded",
    formula=(
        r"\frac{g_H}{g_H + g_T} \sum_v p_v \ln \frac{p_v}{q_v}"
        r" + \frac{g_T}{g_H + g_T} \sum_v q_v \ln \frac{q_v}{p_v},"
        r" \quad g_S = \sum_{v \in S} |p_v - q_v|"
    ),
    source="Wu et al., arXiv 2404.02657, section 4 (AKL)",
    aliases=("akl",),
    choices={"head_rule": ("prefix", "crossing")},
    ranges={"head_mass": "[0, 1]"},
)
def adaptive_kl(
    student: Tensor, teacher: Teacher, *, head_mass: float = 0.5, head_rule: str = "prefix"
) -> Tensor:
    """Forward KL by how far both are apart on the teacher's head, reverse KL on its tail.

    The head H holds the teacher's likeliest tokens, the tail T all others. The weights are
    constants: no gradient flows through them, so the gradient is not that of the value.
    Between `forward_kl` and `reverse_kl`, and 0 for identical models.

    `head_rule` decides on the token at which the teacher's cumulative mass, likeliest tokens
    first, goes beyond `head_mass`. It belongs to the tail under `prefix`, the rule of the
    paper's code, except that the likeliest token is always head. It belongs to the head under
    `crossing`, the rule of DSKD, KDFlow and tokenkit, whose parameter is the mass of the
    tail, 1 - head_mass. Under both, a token at which the mass is `head_mass` exactly ends the
    head (tokenkit counts the next one to it). Tokens of equal probability are taken in the
    order of their ids.

    Top-k teacher: the tokens beyond the top k are one outcome, the last one of the tail.
    Their gaps may cancel in it, which moves weight to the forward KL; the error is not known.

    Args:
        student: logits [N, V].
        teacher: logits [N, V], or top-k.
        head_mass: share of the teacher's probability that makes the head.
        head_rule: `prefix` or `crossing`.

    Raises:
        LossError: the mass is not between 0 and 1, or there is no such rule.
    """
    require_share("head_mass", head_mass)
    require_known("head_rule", head_rule, HEAD_RULES)
    log_q, log_p = common_log_probs(student, teacher)
    forward, reverse = both_kl(log_q, log_p)
    p, q = log_p.exp(), log_q.detach().exp()
    if not isinstance(teacher, TopKRows):  # stored tokens are sorted already
        order = p.argsort(dim=-1, descending=True, stable=True)
        p, q = p.gather(-1, order), q.gather(-1, order)
    gaps, head = (p - q).abs(), _head(p, head_mass, head_rule)
    total = gaps.sum(dim=-1)
    # Without any gap both divergences are 0, whatever the weights are.
    of_head = (gaps * head).sum(dim=-1) / total.masked_fill(total == 0, 1.0)
    return _weighted(forward, of_head) + _weighted(reverse, 1 - of_head)


@loss(
    "balanced_kl",
    family="Kullback-Leibler",
    same_vocabulary=True,
    truncation="unbounded",
    formula=(
        r"w_p \sum_v p_v \ln \frac{p_v}{q_v} + w_q \sum_v q_v \ln \frac{q_v}{p_v},"
        r" \quad w_x = w \text{ if } H(x) \text{ is the larger entropy, else } 1"
    ),
    source="Amara et al., arXiv 2212.12965 (BD-KD); weights as in the code of arXiv 2505.04560",
    aliases=("bdkd",),
    ranges={"weight": "[0, inf)"},
)
def balanced_kl(student: Tensor, teacher: Teacher, *, weight: float = 2.0) -> Tensor:
    """Forward plus reverse KL, the first weighted where the teacher is the less certain one.

    The divergence whose expectation is taken under the side of larger entropy counts
    `weight` times, the other one once. 0 for identical models. As a function of the student
    it jumps where the entropies cross.

    Top-k teacher: the tokens beyond the top k are one outcome. Both divergences are lower
    bounds, but merging lowers either entropy and may change which one is larger.
    """
    log_q, log_p = common_log_probs(student, teacher)
    forward, reverse = both_kl(log_q, log_p)
    teacher_entropy, student_entropy = (
        -expectation(side, side) for side in (log_p, log_q.detach())
    )
    forward = torch.where(teacher_entropy > student_entropy, weight * forward, forward)
    reverse = torch.where(student_entropy > teacher_entropy, weight * reverse, reverse)
    return forward + reverse


def _head(probs: Tensor, mass: float, rule: str) -> Tensor:
    """Which of the descending `probs` [N, M] belong to the head."""
    through = probs.cumsum(dim=-1)
    head = through <= mass if rule == "prefix" else through - probs < mass
    return head | (torch.arange(probs.shape[-1], device=probs.device) == 0)


def _weighted(values: Tensor, weights: Tensor) -> Tensor:
    """Their product, and 0 where the weight is: the value may be infinite there."""
    return weights * values.masked_fill(weights == 0, 0.0)
