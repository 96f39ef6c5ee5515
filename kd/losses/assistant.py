"""Losses against an assistant, a distribution between student and teacher that learns."""

from functools import partial

import torch
from torch import Tensor

from kd.losses.alpha_beta import alpha_beta_divergence
from kd.losses.declaration import loss
from kd.losses.generators import GENERATORS
from kd.losses.mixtures import log_power_mean
from kd.losses.options import require_known, require_share
from kd.losses.probabilities import common_log_probs
from kd.losses.teacher import Teacher

ORDERS = ("pr", "qr", "rp", "rq")


@loss(
    "amid",
    family="assistant",
    same_vocabulary=True,
    truncation="unbounded",
    formula=(
        r"D(p \,\|\, r), \quad"
        r" r_v \propto \left(\lambda p_v^e + (1 - \lambda) q_v^e\right)^{1/e},"
        r" \quad e = \frac{1 - \alpha}{2}"
    ),
    source="Shin et al., arXiv 2510.15982",
    choices={
        "divergence": (
            "kl",
            "reverse_kl",
            "jeffreys",
            "chi2",
            "reverse_chi2",
            "hellinger",
            "jensen_shannon",
            "total_variation",
            "alpha_beta",
        ),
        "order": ("pr", "qr", "rp", "rq"),
    },
    ranges={"teacher_weight": "[0, 1]"},
    kernel="kd.losses.kernels.assistant",
)
def amid(
    student: Tensor,
    teacher: Teacher,
    *,
    alpha: float = 0.5,
    teacher_weight: float = 0.5,
    divergence: str = "kl",
    order: str = "pr",
    ab_alpha: float = 0.2,
    ab_beta: float = 0.7,
) -> Tensor:
    """Divergence between one side and the alpha-mixture of both, through which gradients flow.

    The assistant r is the power mean of p and q with exponent e = (1 - alpha) / 2 and weight
    `teacher_weight` for p, normalised. alpha = -1 is the arithmetic mixture, 1 the geometric,
    3 the harmonic; every other real number is defined too. A weight of 0 makes r the student,
    a weight of 1 the teacher. `order` says what is compared: `pr` is D(p || r), `rq` is
    D(r || q), and so on. Never negative, and 0 for identical models.

    Special cases: alpha = -1 with `kl` is `skew_kl` under `pr` (skew = teacher_weight) and
    `skew_reverse_kl` under `qr` (skew = 1 - teacher_weight).

    With alpha >= 1 the assistant excludes whatever one side does: under `pr` the value is
    infinite where the student excludes what the teacher allows, and no r exists where nothing
    is allowed by both. With alpha < 1 neither happens.

    Top-k teacher: r is formed over the stored tokens and one outcome for all others. Merging
    tokens and the power mean do not commute, so the error of this estimate is not known.

    Args:
        student: logits [N, V].
        teacher: logits [N, V], or top-k.
        alpha: kind of mean, any real number.
        teacher_weight: weight of the teacher in it, from 0 to 1.
        divergence: `alpha_beta`, or a generator of `f_divergence`: `kl`, `hellinger`, ….
        order: `pr`, `qr`, `rp` or `rq`.
        ab_alpha: alpha of `alpha_beta`.
        ab_beta: beta of `alpha_beta`.

    Raises:
        LossError: a weight out of its range, an unknown divergence or order.
    """
    require_share("teacher_weight", teacher_weight)
    require_known("order", order, ORDERS)
    divergences = {name: generator.divergence for name, generator in GENERATORS.items()}
    divergences["alpha_beta"] = partial(alpha_beta_divergence, alpha=ab_alpha, beta=ab_beta)
    require_known("divergence", divergence, divergences)
    log_q, log_p = common_log_probs(student, teacher)
    sides = {"p": log_p, "q": log_q, "r": alpha_mixture(log_p, log_q, alpha, teacher_weight)}
    return divergences[divergence](sides[order[0]], sides[order[1]])


def alpha_mixture(log_p: Tensor, log_q: Tensor, alpha: float, weight: float) -> Tensor:
    """Log-probabilities [N, M] of the alpha-mixture with weight `weight` of p."""
    mean = log_power_mean(log_p, log_q, weight, exponent=(1 - alpha) / 2)
    return torch.log_softmax(mean, dim=-1)
