"""Multi-level optimal transport: of columns between vocabularies, of rows within a sequence."""

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from kd.errors import LossError
from kd.losses.declaration import loss
from kd.losses.multi_level_ot_releases import Release, released
from kd.losses.options import require_known
from kd.losses.probabilities import expectation, log_sum_exp
from kd.losses.rows import AnswerRows
from kd.losses.sequence_transport import Weights, log_probs_of, split_rows, transport_costs

VARIANTS = ("paper", "head", "pre202602")
ITERATIONS = 20
TEMPERATURE = 2.0  # of the Sinkhorn distance


@loss(
    "multi_level_ot",
    family="optimal transport",
    same_vocabulary=False,
    truncation="unbounded",
    formula=r"\sum_i |p_i - q_{\pi(i)}| + \beta \sum_i \tilde p_i \ln \frac{\tilde p_i}"
    r"{\tilde q_{\pi(i)}} + \gamma \sum_j P_{jt} C_{jt}",
    source="Cui et al., arXiv 2412.14528 (AAAI 2025), eq. 10 to 21",
    aliases=("multi-ot",),
)
def multi_level_ot(  # noqa: PLR0913 - the options of two releases, by keyword
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
      |p_i - q_pi(i)| least (eq. 11, 13; solved exactly, by the Hungarian algorithm). For T = 1
      it pairs equal ranks.
    - Absolute differences: that sum, as a value of each row (eq. 14).
    - Logarithms: KL(p~ || q~) of the kept columns, renormalised (eq. 16; the teacher is the
      target, and its entropy, a constant, is subtracted).
    - Sinkhorn distance: C_jt is the L1 distance between the teacher's row j and the student's
      row t, kept columns at temperature 2 and renormalised; P is exp(-C / 0.1) after 20
      normalisations of rows and columns. A row's value is its column's share of <P, C> (eq.
      17 to 20), so that the sum over rows is the paper's.

    The paper's overall weight alpha is the method's weight. A row's value is at least 0. The
    first two terms are 0 for identical models; the third is not, because entropy spreads P
    over rows that differ (`sinkhorn_weight: 0` leaves it out). Where a token's rank crosses
    `top_k` the value jumps by what the token weighs. T^2 costs of a sequence are held at once.

    What the authors' code computes are the variants `head` (commit 712cfb4, since February
    2026) and `pre202602` (d8d298f). Logits are divided by their standard deviation over the
    vocabulary plus 0.0001, then by the `standardised_..._temperature` (dividing them before
    changes nothing), then softmax is taken. `head` ranks columns by their sum over *all* rows
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
        sides = zip(*(split_rows(answers, side) for side in ("student", "teacher")), strict=True)
        return torch.cat([_values(own, other, weights) for own, other in sides])
    temperatures = standardised_student_temperature, standardised_teacher_temperature
    return released(answers, weights, Release(variant == "pre202602", *temperatures))
