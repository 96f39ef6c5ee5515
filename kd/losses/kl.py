"""The Kullback-Leibler family: one side's expectation of the log-ratio of both."""

import torch
from torch import Tensor

from kd.losses.declaration import loss
from kd.losses.options import require_share
from kd.losses.probabilities import common_log_probs, expectation
from kd.losses.teacher import Teacher, TopKRows


@loss(
    "forward_kl",
    family="Kullback-Leibler",
    same_vocabulary=True,
    truncation="lower_bound",
    formula=r"\sum_v p_v \ln \frac{p_v}{q_v}",
    source="Hinton et al., arXiv 1503.02531",
    aliases=("fkl", "kld"),
    kernel="kd.losses.kernels.kl",
    bound="kd.losses.bounds.kl",
    unbiased_on_draws=True,
)
def forward_kl(student: Tensor, teacher: Teacher) -> Tensor:
    """KL(p || q) of teacher p and student q, in nats; 0 for identical models.

    Infinite where the student excludes what the teacher allows; the gradient in the student's
    logits, q - p, is finite even there.

    On a top-k teacher the tokens beyond the top k are one outcome. The full value is larger
    by dropped * KL(p' || q'), p' and q' being both sides renormalised over those tokens:
    never negative, and not bounded by the dropped mass. Given the student it has a bound (see
    `kd.losses.bounds.kl`).

    On drawn tokens it is the cross-entropy of the draws less the teacher's entropy: an unbiased
    estimate, with an unbiased gradient, that can be negative.
    """
    log_q, log_p = common_log_probs(student, teacher)
    if isinstance(teacher, TopKRows) and teacher.entropies is not None:
        return -expectation(log_p, log_q) - teacher.entropies.to(log_q)
    return expectation(log_p, log_p - log_q)


@loss(
    "reverse_kl",
    family="Kullback-Leibler",
    same_vocabulary=True,
    truncation="lower_bound",
    formula=r"\sum_v q_v \ln \frac{q_v}{p_v}",
    source="Gu et al., arXiv 2306.08543 (MiniLLM, its single-step part)",
    aliases=("rkl",),
    kernel="kd.losses.kernels.kl",
)
def reverse_kl(student: Tensor, teacher: Teacher) -> Tensor:
    """KL(q || p) of teacher p and student q, in nats; 0 for identical models.

    Infinite where the teacher excludes what the student allows, so a top-k teacher must come
    with the mass that it dropped: renormalised to 1, it would exclude all other tokens.

    On a top-k teacher the tokens beyond the top k are one outcome. The full value is larger
    by Q * KL(q' || p'), Q being the student's mass on those tokens and q' and p' both sides
    renormalised over them: never negative, and not bounded by the dropped mass.
    """
    log_q, log_p = common_log_probs(student, teacher)
    return expectation(log_q, log_q - log_p)


@loss(
    "symmetric_kl",
    family="Kullback-Leibler",
    same_vocabulary=True,
    truncation="lower_bound",
    formula=(
        r"\lambda \sum_v p_v \ln \frac{p_v}{q_v} + (1 - \lambda) \sum_v q_v \ln \frac{q_v}{p_v}"
    ),
    source="Jeffreys, Proc. R. Soc. A 186, 1946; weighted as in Wang et al., arXiv 2505.04560",
    aliases=("wsd", "weighted_kl"),
    ranges={"forward_weight": "[0, 1]"},
    kernel="kd.losses.kernels.kl",
)
def symmetric_kl(student: Tensor, teacher: Teacher, *, forward_weight: float = 0.5) -> Tensor:
    """Weighted sum of `forward_kl` and `reverse_kl`, whose weights add up to 1.

    `forward_weight` is that of KL(p || q). Other systems differ in which of the two their
    parameter weighs. At 1/2 it is half of Jeffreys' divergence, and symmetric in p and q.

    Top-k teacher: the lower bounds of both, weighted.

    Raises:
        LossError: the weight is not between 0 and 1.
    """
    require_share("forward_weight", forward_weight)
    if forward_weight == 1:  # not 0 times a reverse KL that may be infinite
        return forward_kl(student, teacher)
    if forward_weight == 0:
        return reverse_kl(student, teacher)
    forward, reverse = both_kl(*common_log_probs(student, teacher))
    return forward_weight * forward + (1 - forward_weight) * reverse


@loss(
    "top1_cross_entropy",
    family="Kullback-Leibler",
    same_vocabulary=True,
    truncation="unaffected",
    formula=r"-p_t \ln q_t, \quad t = \arg\max_v p_v",
    source="KDFlow, arXiv 2603.01875 (its loss top1_ce)",
    aliases=("top1_ce",),
    bound="kd.losses.bounds.kl",
)
def top1_cross_entropy(student: Tensor, teacher: Teacher) -> Tensor:
    """Cross-entropy of teacher and student, cut down to the teacher's likeliest token.

    Where the teacher is certain it is the student's negative log-likelihood of that token;
    where it is not, the row counts less. It is not a divergence: it is positive for identical
    models, and only q_t = 1 makes it 0.

    Top-k teacher: exact, since the likeliest token is always stored.
    """
    if isinstance(teacher, TopKRows):
        token, log_prob = teacher.ids[:, :1], teacher.log_probs[:, 0]
    else:
        best = torch.log_softmax(teacher, dim=-1).max(dim=-1, keepdim=True)
        token, log_prob = best.indices, best.values[:, 0]
    return -log_prob.exp() * torch.log_softmax(student, dim=-1).gather(-1, token)[:, 0]


def both_kl(log_q: Tensor, log_p: Tensor) -> tuple[Tensor, Tensor]:
    """KL(p || q) and KL(q || p) of log-probabilities [N, M], each [N]."""
    return expectation(log_p, log_p - log_q), expectation(log_q, log_q - log_p)
