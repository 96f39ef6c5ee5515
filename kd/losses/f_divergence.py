"""The family of f-divergences, by generator."""

from torch import Tensor

from kd.losses.declaration import loss
from kd.losses.generators import GENERATORS
from kd.losses.options import require_known
from kd.losses.probabilities import common_log_probs
from kd.losses.teacher import Teacher


@loss(
    "f_divergence",
    family="f-divergence",
    same_vocabulary=True,
    truncation="lower_bound",
    formula=r"\sum_v q_v f\!\left(\frac{p_v}{q_v}\right)",
    source="Csiszár, 1967; for distillation Wen et al., arXiv 2307.15190 (f-DISTILL)",
    choices={
        "generator": (
            "kl",
            "reverse_kl",
            "jeffreys",
            "chi2",
            "reverse_chi2",
            "hellinger",
            "jensen_shannon",
            "total_variation",
        )
    },
)
def f_divergence(student: Tensor, teacher: Teacher, *, generator: str = "hellinger") -> Tensor:
    """The f-divergence D_f(p || q) of teacher p and student q, for one of eight generators f.

        kl:               v ln v                 forward_kl
        reverse_kl:       -ln v                  reverse_kl
        jeffreys:         (v - 1) ln v           the sum of both
        chi2:             (v - 1)^2              sum (p - q)^2 / q
        reverse_chi2:     (v - 1)^2 / v          sum (p - q)^2 / p
        hellinger:        (sqrt v - 1)^2         sum (sqrt p - sqrt q)^2, at most 2
        jensen_shannon:   1/2 (v ln v - (v + 1) ln((v + 1) / 2)), at most ln 2
        total_variation:  1/2 |v - 1|            at most 1

    Never negative, and 0 for identical models only. The last three are always finite; the
    others are infinite where the student (`kl`, `jeffreys`, `chi2`) or the teacher
    (`reverse_kl`, `jeffreys`, `reverse_chi2`) excludes what the other allows.

    Top-k teacher: the tokens beyond the top k are one outcome. Merging outcomes never
    increases an f-divergence (data processing inequality): the full value is at least this
    one, by an amount that for most generators is not bounded.

    Raises:
        LossError: there is no such generator.
    """
    require_known("generator", generator, GENERATORS)
    log_q, log_p = common_log_probs(student, teacher)
    return GENERATORS[generator].divergence(log_p, log_q)
