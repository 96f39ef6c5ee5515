"""GOLD: tokens of equal text are compared by identity, all others by rank."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from kd.errors import LossError
from kd.losses.declaration import loss
from kd.losses.jensen_shannon import against_mixture
from kd.losses.options import require_share
from kd.losses.ot import leading_excess, sorted_l1
from kd.losses.probabilities import expectation, log_ratio, log_sum_exp
from kd.losses.setup import Vocabularies
from kd.losses.spans import Spans
from kd.losses.teacher import Teacher, TopKRows


@loss(
    "gold_hybrid",
    family="optimal transport",
    same_vocabulary=False,
    truncation="unbounded",
    formula=(
        r"\lambda\, \mathrm{JSD}_w(p_M, q_M)"
        r" + \mu \sum_r |p_{(r) \notin M} - q_{(r) \notin M}|"
    ),
    source="GOLD (General Online Logit Distillation), Hugging Face TRL, hybrid loss",
    aliases=("gold",),
    alignments=("spans", "truncate"),
    ranges={
        "teacher_weight": "[0, 1]",
        "matched_weight": "[0, inf)",
        "unmatched_weight": "[0, inf)",
    },
)
class GoldHybrid(nn.Module):
    """Jensen-Shannon divergence on tokens that both vocabularies have, sorted L1 on the others.

    M are the tokens with the same text on both sides, one to one (the first of several). On
    them p and q are compared token by token, by the generalised Jensen-Shannon divergence with
    the teacher's weight w in the mixture. On all others the sorted probabilities are, as in
    `uld`. The weights are lambda = |M| / |V|, the share of M in the teacher's vocabulary, and
    mu = 1 - lambda, unless both are given.

    p and q are the softmax over whole vocabularies, chained over the span (see `uld`): parts of
    them are no distributions. JSD_w is still a divergence of such parts, since its mixture has
    the mixed mass. Its limits JSD_w / w at 0 and JSD_w / (1 - w) at 1, reached with `scaled`,
    are the Kullback-Leibler divergences with the masses P and Q of both parts,

        sum p ln(p / q) + Q - P     and     sum q ln(q / p) + P - Q.

    TRL leaves the masses out; then the value may be negative, and identical models have a
    gradient. `mass_terms=False` does the same.

    Known weakness: frequent tokens that the other side splits (digits) have no partner in M.

    Top-k teacher: on M the tokens that were not stored are one outcome. How much of the dropped
    mass d is theirs is not known; each token that was not stored is given an equal part of it.
    In the second term d does not appear: as in `uld` it is exact up to the part of d outside M.
    The first one has no bound.

    Args:
        vocabularies: the text of every token on both sides.
        teacher_weight: w, from 0 to 1.
        scaled: divide JSD_w by w (1 - w), which makes it continuous at 0 and 1.
        matched_weight: lambda, with unmatched_weight.
        unmatched_weight: mu, with matched_weight.
        mass_terms: keep Q - P and P - Q at w = 0 and 1.

    Raises:
        LossError: w is not between 0 and 1, or is one of them without `scaled`; or one of
            both weights is given without the other, or is negative.
    """

    def __init__(
        self,
        vocabularies: Vocabularies,
        *,
        teacher_weight: float = 0.5,
        scaled: bool = False,
        matched_weight: float | None = None,
        unmatched_weight: float | None = None,
        mass_terms: bool = True,
    ) -> None:
        super().__init__()
        require_share("teacher_weight", teacher_weight)
        if teacher_weight in (0, 1) and not scaled:
            raise LossError(
                f"the Jensen-Shannon divergence is always 0 at teacher_weight {teacher_weight}: "
                "set 'scaled' for its limit."
            )
        self._weight = teacher_weight
        self._scaled = scaled
        self._mass_terms = mass_terms
        self._size = len(vocabularies.teacher)
        own, other = matched_tokens(vocabularies.student, vocabularies.teacher)
        self._weights = _weights(matched_weight, unmatched_weight, len(own) / self._size)
        place = torch.full((self._size,), len(own))
        place[other] = torch.arange(len(own))
        self._own: Tensor
        self._other: Tensor
        self._place: Tensor  # of each of the teacher's tokens in M; |M| for those outside
        self.register_buffer("_own", torch.tensor(own, dtype=torch.int64), persistent=False)
        self.register_buffer("_other", torch.tensor(other, dtype=torch.int64), persistent=False)
        self.register_buffer("_place", place, persistent=False)

    def forward(self, student: Tensor, teacher: Teacher, spans: Spans) -> Tensor:
        """The weighted sum of both terms, [N]."""
        self.to(student.device)
        log_q = student.log_softmax(dim=-1) + spans.student.before[:, None]
        compare = self._compare_top_k if isinstance(teacher, TopKRows) else self._compare_dense
        matched, unmatched = compare(log_q, teacher, spans)  # type: ignore[arg-type]
        return self._weights[0] * matched + self._weights[1] * unmatched

    def _compare_dense(self, log_q: Tensor, teacher: Tensor, spans: Spans) -> tuple[Tensor, Tensor]:
        log_p = teacher.log_softmax(dim=-1) + spans.teacher.before[:, None]
        matched = self._divergence(log_p[:, self._other], log_q[:, self._own])
        return matched, sorted_l1(_without(log_p, self._other), _without(log_q, self._own))

    def _compare_top_k(
        self, log_q: Tensor, teacher: TopKRows, spans: Spans
    ) -> tuple[Tensor, Tensor]:
        kept = teacher.log_probs > -torch.inf
        place = self._places(teacher.ids).masked_fill(~kept, len(self._own))
        inside = place < len(self._own)
        log_p = teacher.log_probs + spans.teacher.before[:, None]
        # The students' tokens of M, and a last column for whatever is outside.
        own = torch.nn.functional.pad(log_q[:, self._own], (0, 1), value=-torch.inf)
        rest = log_sum_exp(own.scatter(-1, place, -torch.inf))
        share = (len(self._own) - inside.sum(-1)) / (self._size - kept.sum(-1)).clamp(min=1)
        lost = teacher.dropped * spans.teacher.mass * share
        matched = self._divergence(
            torch.cat([log_p.masked_fill(~inside, -torch.inf), lost.log()[:, None]], dim=-1),
            torch.cat([own.gather(-1, place), rest], dim=-1),
        )
        stored = log_p.exp().masked_fill(inside, 0.0).sort(dim=-1, descending=True).values
        others = _without(log_q, self._own)
        masses = others.sum(-1) - stored.sum(-1)
        return matched, 2 * leading_excess(stored, others) + masses

    def _places(self, ids: Tensor) -> Tensor:
        """Places in M of the teacher's tokens; its logits may have columns beyond, of no token."""
        known = ids < self._size
        return self._place[ids.where(known, 0)].masked_fill(~known, len(self._own))

    def _divergence(self, log_p: Tensor, log_q: Tensor) -> Tensor:
        """The first term [N] for log-probabilities [N, M] of parts of both sides."""
        if 0 < self._weight < 1:
            of_teacher, of_student = against_mixture(log_p, log_q, self._weight)
            if self._scaled:
                return of_teacher / (1 - self._weight) + of_student / self._weight
            return self._weight * of_teacher + (1 - self._weight) * of_student
        first, second = (log_q, log_p) if self._weight else (log_p, log_q)
        value = expectation(first, log_ratio(first, second))
        if self._mass_terms:
            value = value + second.exp().sum(-1) - first.exp().sum(-1)
        return value


def matched_tokens(
    student: Sequence[str | None], teacher: Sequence[str | None]
) -> tuple[list[int], list[int]]:
    """Ids of tokens with the same text on both sides, one to one, in the teacher's order."""
    first_of = {text: number for number, text in reversed(list(enumerate(student)))}
    pairs = {
        text: (first_of[text], number)
        for number, text in reversed(list(enumerate(teacher)))
        if text is not None and text in first_of
    }
    ordered = sorted(pairs.values(), key=lambda pair: pair[1])
    return [own for own, _ in ordered], [other for _, other in ordered]


def _weights(matched: float | None, unmatched: float | None, share: float) -> tuple[float, float]:
    if matched is None and unmatched is None:
        return share, 1 - share
    if matched is None or unmatched is None:
        raise LossError("give both 'matched_weight' and 'unmatched_weight', or none of them.")
    if min(matched, unmatched) < 0:
        raise LossError("'matched_weight' and 'unmatched_weight' must not be negative.")
    return matched, unmatched


def _without(log_probs: Tensor, ids: Tensor) -> Tensor:
    """Probabilities [N, V - M] of the tokens that are not among `ids` [M]."""
    others = torch.ones(log_probs.shape[-1], dtype=torch.bool, device=ids.device)
    others[ids] = False
    return log_probs[:, others].exp()
