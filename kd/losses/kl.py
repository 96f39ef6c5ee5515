"""The Kullback-Leibler family: the teacher's distribution against the student's."""

from torch import Tensor

from kd.losses.declaration import loss
from kd.losses.probabilities import common_log_probs, expectation
from kd.losses.teacher import Teacher


@loss(
    "forward_kl",
    family="Kullback-Leibler",
    same_vocabulary=True,
    truncation="lower_bound",
    formula=r"\sum_v p_v \ln \frac{p_v}{q_v}",
    source="Hinton et al., arXiv 1503.02531",
    aliases=("fkl", "kld"),
)
def forward_kl(student: Tensor, teacher: Teacher) -> Tensor:
    """KL(p || q) of teacher p and student q, in nats; 0 for identical models.

    On a top-k teacher the tokens beyond the top k are one outcome. The full value is larger
    by dropped * KL(p' || q'), p' and q' being both sides renormalised over those tokens:
    never negative, and not bounded by the dropped mass.
    """
    log_q, log_p = common_log_probs(student, teacher)
    return expectation(log_p, log_p - log_q)
