"""What top-k distillation often is elsewhere: the teacher's k likeliest tokens, scaled to 1."""

from torch import Tensor

from kd.losses.declaration import loss
from kd.losses.probabilities import common_log_probs, expectation
from kd.losses.teacher import Teacher, TopKRows


@loss(
    "renormalised_kl",
    family="Kullback-Leibler",
    same_vocabulary=True,
    truncation="unbounded",
    formula=(
        r"\sum_{v \in K} \hat p_v \ln \frac{\hat p_v}{q_v}, \quad "
        r"\hat p_v = \frac{p_v}{\sum_{w \in K} p_w}"
    ),
    source="Anshumann et al., arXiv 2503.16870, section 2 (there as what not to do)",
)
def renormalised_kl(student: Tensor, teacher: Teacher) -> Tensor:
    """KL(p^ || q) of the teacher's stored tokens, renormalised to 1, and the student.

    It is 0 where the student is p^, and at least -ln(1 - q(K)) whatever else it does, K being the
    stored tokens: its minimum is a student that excludes all others.

    On a dense teacher it is `forward_kl`. On a top-k teacher it is biased: with d the dropped
    mass its gradient in the student's logits is q - p^ instead of q - p, so that a student equal
    to the teacher is pushed away from it, by 2 d in the L1 norm. `forward_kl` keeps the tail as
    one outcome instead. It is here for comparison with systems that do this.
    """
    log_q, log_p = common_log_probs(student, teacher)
    if isinstance(teacher, TopKRows):
        log_q = log_q[:, :-1]
        log_p = log_p[:, :-1] - log_p[:, :-1].logsumexp(dim=-1, keepdim=True)
    return expectation(log_p, log_p - log_q)
