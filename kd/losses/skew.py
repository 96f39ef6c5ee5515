"""Skew divergences: one distribution against its mixture with the other."""

from torch import Tensor

from kd.errors import LossError
from kd.losses.declaration import loss
from kd.losses.mixtures import log_mixture
from kd.losses.probabilities import common_log_probs, expectation
from kd.losses.teacher import Teacher


@loss(
    "skew_kl",
    family="skew",
    same_vocabulary=True,
    truncation="certified",
    formula=r"\sum_v p_v \ln \frac{p_v}{a p_v + (1 - a) q_v}",
    source="Ko et al., arXiv 2402.03898, section 3.1 (SKL)",
    aliases=("skl",),
    ranges={"skew": "(0, 1)"},
    kernel="kd.losses.kernels.skew",
    bound="kd.losses.bounds.skew",
)
def skew_kl(student: Tensor, teacher: Teacher, *, skew: float = 0.1) -> Tensor:
    """KL(p || a p + (1 - a) q), a the skew: forward KL with a floor under the student.

    Between 0, for identical models only, and ln(1/a), for a student that excludes all that
    the teacher allows. It tends to `forward_kl` as a goes to 0.

    Top-k teacher: the tokens beyond the top k are one outcome. With dropped mass d and the
    student's mass Q on the dropped tokens, the full value is larger by at most

        d ln(1 + (1 - a) Q / (a d)) <= d ln(1 / (a d)),

    a bound that vanishes with d and that is reached.

    Proof. Let m = a p + (1 - a) q, M = a d + (1 - a) Q its mass on the dropped tokens, and
    p', m' both sides renormalised over these. By the chain rule the merged outcome misses
    d KL(p' || m') >= 0. Since m >= a p, m' = m / M >= (a d / M) p', so that
    KL(p' || m') <= ln(M / (a d)); and M <= 1.

    Raises:
        LossError: the skew is not between 0 and 1.
    """
    log_q, log_p = common_log_probs(student, teacher)
    return skew_divergence(log_p, log_q, skew)


@loss(
    "skew_reverse_kl",
    family="skew",
    same_vocabulary=True,
    truncation="certified",
    formula=r"\sum_v q_v \ln \frac{q_v}{(1 - a) p_v + a q_v}",
    source="Ko et al., arXiv 2402.03898, section 3.1 (SRKL)",
    aliases=("srkl",),
    ranges={"skew": "(0, 1)"},
    kernel="kd.losses.kernels.skew",
    bound="kd.losses.bounds.skew",
)
def skew_reverse_kl(
    student: Tensor, teacher: Teacher, *, skew: float = 0.1, detach_mixture: bool = False
) -> Tensor:
    """KL(q || (1 - a) p + a q), a the skew: reverse KL with a floor under the teacher.

    Between 0, for identical models only, and ln(1/a). It tends to `reverse_kl` as a goes
    to 0. With `detach_mixture` the student inside the mixture is a constant: the value stays,
    the gradient is not that of the value.

    Top-k teacher: the tokens beyond the top k are one outcome. With dropped mass d and the
    student's mass Q on the dropped tokens, the full value is larger by at most

        Q ln(1 + (1 - a) d / (a Q)) <= d (1 - a) / a.

    Proof. Let m = (1 - a) p + a q, M = (1 - a) d + a Q its mass on the dropped tokens, and
    q', m' both sides renormalised over these. The merged outcome misses Q KL(q' || m') >= 0.
    Since m >= a q, m' = m / M >= (a Q / M) q', so that KL(q' || m') <= ln(M / (a Q)); and
    ln(1 + x) <= x.

    Raises:
        LossError: the skew is not between 0 and 1.
    """
    log_q, log_p = common_log_probs(student, teacher)
    return skew_divergence(log_q, log_p, skew, detach_mixture=detach_mixture)


def skew_divergence(
    log_x: Tensor, log_y: Tensor, skew: float, *, detach_mixture: bool = False
) -> Tensor:
    """KL(x || a x + (1 - a) y), a the skew, of log-probabilities [N, M], as [N].

    Args:
        log_x: the first argument, which also is in the mixture.
        log_y: the other side of the mixture.
        skew: weight of x in the mixture.
        detach_mixture: take x inside the mixture as a constant.

    Raises:
        LossError: the skew is not between 0 and 1.
    """
    if not 0 < skew < 1:
        raise LossError(
            f"skew is {skew}, but must be greater than 0 and less than 1 "
            "(at 0 the divergence is 'forward_kl' or 'reverse_kl', at 1 it is always 0)."
        )
    inside = log_x.detach() if detach_mixture else log_x
    return expectation(log_x, log_x - log_mixture(inside, log_y, skew))
