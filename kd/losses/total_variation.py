"""Total variation distance."""

from torch import Tensor

from kd.losses.declaration import loss
from kd.losses.probabilities import common_log_probs
from kd.losses.teacher import Teacher


@loss(
    "total_variation",
    family="total variation",
    same_vocabulary=True,
    truncation="certified",
    formula=r"\frac{1}{2} \sum_v |p_v - q_v|",
    source="Wen et al., arXiv 2307.15190 (f-DISTILL)",
    aliases=("tvd", "tv_distance"),
    kernel="kd.losses.kernels.total_variation",
    bound="kd.losses.bounds.total_variation",
)
def total_variation(student: Tensor, teacher: Teacher) -> Tensor:
    """Half the L1 distance between both distributions: 0 if they agree, at most 1.

    It is the largest difference in the probability of any set of tokens. Tokens are told
    apart, other than in `uld`, which compares sorted probabilities and is at most twice this.
    The gradient depends on the sign of each p - q only: it does not fade as both get close,
    and where they are equal up to rounding, rounding decides on it. Exactly equal, it is 0.

    Top-k teacher: the tokens beyond the top k are one outcome. With dropped mass d,

        TVD~ <= TVD <= TVD~ + d.

    Proof. Let d and Q be both sides' mass on the dropped tokens. There, since
    |x - y| = x + y - 2 min(x, y), TVD has (d + Q)/2 - sum of min(p_v, q_v), and TVD~ has
    (d + Q)/2 - min(d, Q). The difference, min(d, Q) - sum of min(p_v, q_v), is at least 0,
    as that sum exceeds neither d nor Q, and at most min(d, Q) <= d.
    """
    log_q, log_p = common_log_probs(student, teacher)
    return (log_p.exp() - log_q.exp()).abs().sum(dim=-1) / 2
