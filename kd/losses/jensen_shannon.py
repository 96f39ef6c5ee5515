"""Jensen-Shannon divergences: both sides against their mixture."""

import torch
from torch import Tensor

from kd.errors import LossError
from kd.losses.declaration import loss
from kd.losses.kl import forward_kl, reverse_kl
from kd.losses.options import require_share
from kd.losses.probabilities import common_log_probs, expectation, log_ratio
from kd.losses.teacher import Teacher


@loss(
    "jensen_shannon",
    family="Jensen-Shannon",
    same_vocabulary=True,
    truncation="certified",
    formula=(
        r"w \sum_v p_v \ln \frac{p_v}{m_v} + (1 - w) \sum_v q_v \ln \frac{q_v}{m_v},"
        r" \quad m = w p + (1 - w) q"
    ),
    source="Agarwal et al., arXiv 2306.13649, eq. 1 (GKD)",
    aliases=("jsd", "gkd"),
    ranges={"teacher_weight": "[0, 1]"},
    kernel="kd.losses.kernels.jensen_shannon",
    bound="kd.losses.bounds.jensen_shannon",
    unbounded_when={"teacher_weight": (0, 1)},
)
def jensen_shannon(
    student: Tensor, teacher: Teacher, *, teacher_weight: float = 0.5, scaled: bool = False
) -> Tensor:
    """Generalised Jensen-Shannon divergence; w is the teacher's weight in the mixture m.

    Always finite: between 0, for identical models only, and the entropy of (w, 1 - w), at
    most ln 2. At w = 1/2 it is symmetric in p and q.

    Towards w = 0 and w = 1 it vanishes, JSD_w / w going to `forward_kl` and JSD_w / (1 - w)
    to `reverse_kl`. Other systems put these in its place at 0 and 1, and jump there. With
    `scaled` the divergence is divided by w (1 - w) and continuous: `forward_kl` at 0,
    `reverse_kl` at 1, four times the Jensen-Shannon divergence at 1/2.

    Top-k teacher: the tokens beyond the top k are one outcome. With dropped mass d the full
    value is larger by at most

        w d (1 + ln(1 / (w d))),

    which vanishes with d; `scaled` divides the bound too.

    Proof. Let Q be the student's mass on the dropped tokens, M = w d + (1 - w) Q that of the
    mixture, and p', q', m' all three renormalised over them. By the chain rule the merged
    outcome misses w d KL(p' || m') + (1 - w) Q KL(q' || m') >= 0. Since m' >= (w d / M) p'
    and m' >= ((1 - w) Q / M) q', this is at most w d ln(M / (w d)) +
    (1 - w) Q ln(1 + w d / ((1 - w) Q)). M <= 1 bounds the first part, and ln(1 + x) <= x the
    second by w d.

    Args:
        student: logits [N, V].
        teacher: logits [N, V], or top-k.
        teacher_weight: w, from 0 to 1. Other systems may count the student's weight.
        scaled: divide by w (1 - w).

    Raises:
        LossError: w is not between 0 and 1, or is one of them without `scaled`: a loss that
            is 0 for every student is asked for by mistake.
    """
    require_share("teacher_weight", teacher_weight)
    if teacher_weight in (0, 1):
        if not scaled:
            raise LossError(
                f"the Jensen-Shannon divergence is always 0 at teacher_weight {teacher_weight}: "
                "use 'forward_kl' for its limit at 0, 'reverse_kl' for that at 1, or 'scaled'."
            )
        return (reverse_kl if teacher_weight else forward_kl)(student, teacher)
    log_q, log_p = common_log_probs(student, teacher)
    of_teacher, of_student = against_mixture(log_p, log_q, teacher_weight)
    if scaled:
        return of_teacher / (1 - teacher_weight) + of_student / teacher_weight
    return teacher_weight * of_teacher + (1 - teacher_weight) * of_student


def against_mixture(log_p: Tensor, log_q: Tensor, weight: float) -> tuple[Tensor, Tensor]:
    """KL(p || m) and KL(q || m), each [N], for m = w p + (1 - w) q and 0 < w < 1.

    Both are found from ln(p / q) alone, since ln m - ln p would lose the digits in which m
    and p differ: however near w is to 1 (or 0), these divergences keep theirs.
    """
    ratio = log_ratio(log_p, log_q)
    return (
        expectation(log_p, -_log_mixture_over_other(-ratio, 1 - weight)),
        expectation(log_q, -_log_mixture_over_other(ratio, weight)),
    )


def _log_mixture_over_other(ratio: Tensor, weight: float) -> Tensor:
    """ln(m / b) for m = w a + (1 - w) b, as a function of ln(a / b); may be infinite."""
    bend = 40.0  # any point where exp(x) is large, and not too large for float32
    below = (weight * ratio.clamp(max=bend).expm1()).log1p()
    beyond = ratio + (weight + (1 - weight) * (-ratio.clamp(min=bend)).exp()).log()
    return torch.where(ratio > bend, beyond, below)
