"""Losses that treat what the teacher wrote otherwise than what the student wrote."""

from torch import Tensor

from kd.errors import LossError
from kd.losses.declaration import loss
from kd.losses.probabilities import common_log_probs
from kd.losses.skew import skew_divergence
from kd.losses.teacher import Teacher


@loss(
    "cald",
    family="contrastive",
    same_vocabulary=True,
    truncation="certified",
    formula=(
        r"(2 - b)\,\mathrm{KL}(p \,\|\, a p + (1 - a) q)"
        r" \text{ or } b\,\mathrm{KL}(q \,\|\, (1 - a) p + a q)"
    ),
    source="Ko et al., arXiv 2503.07067, section 3 (DistiLLM-2)",
    aliases=("distillm2",),
    ranges={"skew": "(0, 1)", "student_weight": "[0, 2]"},
    bound="kd.losses.bounds.skew",
)
def cald(
    student: Tensor,
    teacher: Teacher,
    student_responses: Tensor,
    *,
    skew: float = 0.1,
    student_weight: float = 1.0,
    detach_mixture: bool = False,
) -> Tensor:
    """Contrastive: `skew_kl` where the teacher wrote, `skew_reverse_kl` where the student did.

    Rows of the teacher's responses have the value (2 - b) * SKL, those of the student's own
    responses b * SRKL, b being `student_weight`, between 0 and 2. The mean over as many
    sequences of either kind (`reduction: sequence`) is the authors' objective with the factor
    1/2 that the paper has. Where nobody says who wrote a text, the teacher did.

    `detach_mixture` is the SRKL's, and what the authors' code does: the value stays, the
    gradient is not that of the value.

    Top-k teacher: the bounds of both skew divergences, times their weights.

    Raises:
        LossError: the skew is not between 0 and 1, or the weight not between 0 and 2.
    """
    if not 0 <= student_weight <= 2:
        raise LossError(f"student_weight is {student_weight}, but must be between 0 and 2.")
    log_q, log_p = common_log_probs(student, teacher)
    own, others = student_responses, ~student_responses
    forward = skew_divergence(log_p[others], log_q[others], skew)
    reverse = skew_divergence(log_q[own], log_p[own], skew, detach_mixture=detach_mixture)
    values = log_q.new_zeros(len(log_q))
    values = values.masked_scatter(others, (2 - student_weight) * forward)
    return values.masked_scatter(own, student_weight * reverse)
