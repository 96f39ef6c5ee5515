"""Multi-level optimal transport: of columns between vocabularies, of rows within a sequence."""

from collections.abc import Iterator

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from kd.errors import LossError
from kd.losses.answers import first_of_each
from kd.losses.declaration import loss
from kd.losses.multi_level_ot_releases import Release, released
from kd.losses.options import require_known
from kd.losses.probabilities import expectation, log_sum_exp
from kd.losses.rows import AnswerRows
from kd.losses.sequence_transport import Weights, teacher_log_probs, transport_shares
from kd.losses.teacher import Teacher, TopKRows

VARIANTS = ("paper", "head", "pre202602")
ITERATIONS = 20
TEMPERATURE = 2.0  # of the Sinkhorn distance
TIE_BREAK = 1e-6  # of squared differences, which are no larger than absolute ones


@loss(
    "multi_level_ot",
    family="optimal transport",
    same_vocabulary=False,
    truncation="unbounded",
    formula=r"\sum_i |p_i - q_{\pi(i)}| + \beta \sum_i \tilde p_i \ln \frac{\tilde p_i}"
    r"{\tilde q_{\pi(i)}} + \gamma \sum_j P_{jt} C_{jt}",
    source="Cui et al., arXiv 2412.14528 (AAAI 2025), eq. 10 to 21",
    aliases=("multi-ot",),
    dense_when={"variant": ("head", "pre202602")},
    choices={"variant": ("paper", "head", "pre202602")},
    ranges={
        "top_k": "[1, inf)",
        "log_weight": "[0, inf)",
        "sinkhorn_weight": "[0, inf)",
        "standardised_student_temperature": "(0, inf)",
        "standardised_teacher_temperature": "(0, inf)",
    },
)
def multi_level_ot(
    answers: AnswerRows,
    *,
    variant: str = "paper",
    top_k: int = 50,
    log_weight: float = 0.1,
    sinkhorn_weight: float = 0.1,
    standardised_student_temperature: float = 1.0,
    standardised_teacher_temperature: float = 1.0,
) -> Tensor:
    """Absolute differences, logarithms and a Sinkhorn distance of matched token probabilities.

    Unlike ULD, which sorts every row by itself, it pairs whole columns: one student's token
    with one teacher's throughout a sequence. `variant: paper`, for each sequence by itself:

    - Both answers are cut to the shorter one, of T rows. No other row is read.
    - Columns are ranked by their probability summed over the T rows, on each side, and the
      first `top_k` are kept, or as many as are possible on both sides (eq. 10, 12).
    - Kept columns are paired by the assignment pi that makes the sum over all rows of
      |p_i - q_pi(i)| least (eq. 11, 13; found by the Hungarian algorithm); of several, as there
      often are, the one of least squares. For T = 1 it pairs equal ranks.
    - Absolute differences: that sum, as a value of each row (eq. 14).
    - Logarithms: KL(p~ || q~) of the kept columns, renormalised (eq. 16; the teacher is the
      target, and its entropy, a constant, is subtracted).
    - Sinkhorn distance: C_jt is the L1 distance between the teacher's row j and the student's
      row t, kept columns at temperature 2 and renormalised; P is exp(-C / 0.1) after 20
      normalisations of rows and columns. A row's value is its column's share of <P, C> (eq.
      17 to 20), so that the sum over rows is the paper's.

    Logits are not standardised: only the code does that. The paper's overall weight alpha is
    the method's weight. A row's value is at least 0. The
    first two terms are 0 for identical models; the third is not, because entropy spreads P
    over rows that differ (`sinkhorn_weight: 0` leaves it out). Where a token's rank crosses
    `top_k` the value jumps by what the token weighs. T^2 costs of a sequence are held at once.

    What the authors' code computes are the variants `head` (commit 712cfb4, since February
    2026) and `pre202602` (d8d298f). Logits are divided by their standard deviation over the
    vocabulary plus 0.0001, then by the `standardised_..._temperature` (dividing them before
    has next to no effect), then softmax is taken. `head` ranks columns by their sum over *all* rows
    of the batch; `pre202602` sorts every row. Equal ranks are paired. Rows missing in shorter
    answers are rows of zeros in all but the first term. The second term is the cross-entropy
    of the *teacher* against the *student* as the target, both after a second softmax over
    their probabilities; the third takes it as well, runs 10 normalisations, sums over the batch
    and is multiplied by 0.001. The value is that of the batch: adding micro-batches up does not
    give it. Both variants need the teacher's whole distributions.

    Top-k teacher: dropped tokens count 0. A token that is dropped in some rows keeps its rank
    and partner only if its sum does, so that the error has no bound.
    """
    require_known("variant", variant, VARIANTS)
    if top_k < 1:
        raise LossError(f"top_k is {top_k}, but must be 1 or more.")
    weights = Weights(top_k, log_weight, sinkhorn_weight)
    if variant == "paper":
        return torch.cat([_values(*sides, weights) for sides in _sequences(answers)])
    temperatures = standardised_student_temperature, standardised_teacher_temperature
    return released(answers, weights, Release(variant == "pre202602", *temperatures))


def _values(student: Tensor, teacher: Tensor, weights: Weights) -> Tensor:
    """Values [T] of one sequence's rows, from log-probabilities [T, Vs] and [T, Vt]."""
    log_q, log_p = matched_columns(student, teacher, weights.top_k)
    values = (log_p.exp() - log_q.exp()).abs().sum(dim=-1)
    if weights.log:
        kept_q, kept_p = _renormalised(log_q), _renormalised(log_p)
        values = values + weights.log * expectation(kept_p, kept_p - kept_q)
    if weights.sinkhorn:
        soft_q, soft_p = (_renormalised(side / TEMPERATURE).exp() for side in (log_q, log_p))
        values = values + weights.sinkhorn * transport_shares(soft_p, soft_q, ITERATIONS)
    return values


def matched_columns(student: Tensor, teacher: Tensor, top_k: int) -> tuple[Tensor, Tensor]:
    """The columns that are kept, [T, K] on both sides, each beside its partner.

    Args:
        student: log-probabilities [T, Vs] of one sequence.
        teacher: log-probabilities [T, Vt].
        top_k: how many columns are kept, unless fewer are possible on one side.
    """
    ranked = [_by_mass(side) for side in (student, teacher)]
    size = min(top_k, *(len(columns) for columns in ranked))
    log_q, log_p = (
        side[:, columns[:size]] for side, columns in zip((student, teacher), ranked, strict=True)
    )
    p, q = (side.detach().double().exp().T for side in (log_p, log_q))
    # Absolute differences alone tie often: all pairings of x < x' with y < y' where x' < y.
    costs = torch.cdist(p, q, p=1) + TIE_BREAK * torch.cdist(p, q).square()
    _, partners = linear_sum_assignment(costs.nan_to_num(1.0).cpu().numpy())
    return log_q[:, torch.from_numpy(partners).to(log_q.device)], log_p


def _by_mass(log_probs: Tensor) -> Tensor:
    """The possible columns of log-probabilities [T, V], by their sums over rows, largest first.

    Sums are compared as logarithms: in float32 the least ones would all be 0, as impossible are.
    """
    mass, columns = log_probs.detach().logsumexp(dim=0).sort(descending=True)
    return columns[mass != -torch.inf]


def _renormalised(log_probs: Tensor) -> Tensor:
    """Log-probabilities [T, K] of rows that sum up to 1, but for impossible rows."""
    total = log_sum_exp(log_probs)
    return log_probs - total.masked_fill(total == -torch.inf, 0.0)


def _sequences(answers: AnswerRows) -> Iterator[tuple[Tensor, Tensor]]:
    """Log-probabilities of each sequence's paired rows, [T, Vs] and [T, Vt]."""
    paired = torch.minimum(answers.student_lengths, answers.teacher_lengths).tolist()
    first = zip(
        first_of_each(answers.student_lengths).tolist(),
        first_of_each(answers.teacher_lengths).tolist(),
        strict=True,
    )
    for (own, other), length in zip(first, paired, strict=True):
        if length:
            student = answers.student[own : own + length].log_softmax(dim=-1)
            yield student, teacher_log_probs(_rows(answers.teacher, slice(other, other + length)))


def _rows(teacher: Teacher, chosen: slice) -> Teacher:
    if isinstance(teacher, TopKRows):
        dropped = teacher.dropped[chosen]
        return TopKRows(teacher.ids[chosen], teacher.log_probs[chosen], dropped, teacher.vocabulary)
    return teacher[chosen]
