"""Bounds of `kd.losses.ot` and `kd.losses.exact_ot`. They do not depend on the student."""

from torch import Tensor

from kd.losses.bounds.storage import distance
from kd.losses.spans import Spans
from kd.losses.teacher import TopKRows


def uld(teacher: TopKRows, spans: Spans) -> Tensor:
    """P~ times: dropped mass d + sum over stored tokens of |p~_r - p_r| + e^E - 1.

    P is the probability of a span before its last token, 1 for single tokens. It is read as P~,
    and |ln P~ - ln P| <= E: at temperatures other than 1 the sums that normalise it depend on
    what was stored.

    Proof, for P = 1. The stored values and d~ add up to 1, so that, by |x| = 2 max(x, 0) - x, the
    value is sum over r <= K of |p~_r - q_r| plus the student's mass Q beyond rank K. The true one
    is the same sum with p_r, plus sum over r > K of |p_r - q_r|, which is between Q - d and Q + d;
    and d <= d~.

    Otherwise let f(x, y) be the value of a row of probabilities x times y. As above, with all p
    times P~, |f(p~, P~) - f(p, P~)| <= P~ (d~ + sum of |p~_r - p_r|). And |f(p, P~) - f(p, P)| is
    at most sum over r of |P~ p_r - P p_r| = |P~ - P| <= P~ (e^E - 1), since P is between P~ e^-E
    and P~ e^E and 1 - e^-E <= e^E - 1.
    """
    chained = spans.teacher.before_error.expm1()
    return (teacher.dropped + distance(teacher) + chained) * spans.teacher.mass


def ot_uniform(teacher: TopKRows) -> Tensor:
    """Half of: d, what storing changes, and what it changes about d.

    Proof. With costs between 0 and 1 the value changes by at most the total variation of what
    changes about p: of a plan only that mass has to be moved elsewhere. Storing changes
    sum over stored tokens of |p~ - p| and, on the rest, at most `dropped_error` * d~. Dropped
    tokens themselves change it by at most d / 2 (see `kd.losses.transport`). That is about exact
    plans: Sinkhorn's solver stops early, at a value that no proof is about, and is declared
    unbounded.
    """
    changed = distance(teacher) + teacher.dropped_error * teacher.dropped
    return (changed + teacher.dropped) / 2


def ot_edit_distance(teacher: TopKRows) -> Tensor:
    """As `ot_uniform`: the proof asks for costs between 0 and 1."""
    return ot_uniform(teacher)


def ot_embedding(teacher: TopKRows) -> Tensor:
    """As `ot_uniform`: the proof asks for costs between 0 and 1."""
    return ot_uniform(teacher)
