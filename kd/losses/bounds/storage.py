"""The part of an error that comes from storing probabilities in few bits.

Notation: p_j are the true probabilities of the stored tokens and, as one further outcome, of all
others; p~_j are those that are read. Known are e_j with |ln p~_j - ln p_j| <= e_j.
"""

import torch
from torch import Tensor

from kd.losses.teacher import TopKRows

SUM_ERROR = 2.0**-17  # by which, with float32's rounding, stored probabilities may miss 1


def stored_probs(teacher: TopKRows) -> Tensor:
    """p~ of the stored tokens and of all others, [N, K + 1]."""
    return torch.cat([teacher.log_probs.exp(), teacher.dropped[:, None]], dim=-1)


def log_errors(teacher: TopKRows) -> Tensor:
    """The e of the stored tokens and of all others, [N, K + 1].

    Of the likeliest token more is known than of the rest: it has what they leave. Let d~ be the
    mass of the tokens that are not stored and g its error. Since both sides add up to 1,

        |p~_1 - p_1| <= sum over 1 < j <= K of |p~_j - p_j| + |d~ - d| <= x,
        x = (e^e - 1) (1 - d~ - p~_1) + g d~,

    so that e_1 = -ln(1 - x / p~_1) will do where that is less than e.
    """
    width = teacher.log_probs.shape[-1] + 1
    if teacher.log_errors is None:
        return teacher.log_probs.new_zeros(len(teacher.dropped), width)
    error = teacher.log_errors.to(teacher.log_probs)[:, None]
    top = teacher.log_probs[:, :1].exp()
    dropped = teacher.dropped[:, None]
    others = (1 - dropped - top).clamp(min=0) + SUM_ERROR
    share = (error.expm1() * others + teacher.dropped_error * dropped + SUM_ERROR) / top
    errors = error.repeat(1, width)
    errors[:, :1] = torch.minimum(error, -(-share.clamp(max=1)).log1p())
    errors[:, -1] = teacher.dropped_error
    return errors


def storage_error(teacher: TopKRows, slopes: Tensor) -> Tensor:
    """Bound [N] of the error of a sum over outcomes of g(p_j, q_j), q being known.

    With s = dg/dp, at p~: e_j e^(2 e_j) p~_j (|s_j| + e_j), summed over all outcomes. Needed is
    either |ds / d ln p| <= 1 or |d ln |s| / d ln p| <= 1.

    Proof. |g(p~) - g(p)| is at most the integral, for u from 0 to e on one side, of
    p~ e^|u| |s(p~ e^u)|. In the first case |s(p~ e^u)| <= |s(p~)| + e, in the second it is at
    most e^e |s(p~)|.

    Args:
        teacher: N rows.
        slopes: s of the stored tokens and of all others, [N, K + 1]; where p~ is 0 not read.
    """
    probs, errors = stored_probs(teacher), log_errors(teacher)
    terms = errors * (2 * errors).exp() * probs * (slopes.abs() + errors)
    return (
        terms.masked_fill(probs == 0, 0.0).sum(dim=-1).nan_to_num(nan=torch.inf, posinf=torch.inf)
    )


def distance(teacher: TopKRows) -> Tensor:
    """Bound [N] of the sum over stored tokens of |p~_j - p_j|: p~_j (e^(e_j) - 1)."""
    found = stored_probs(teacher) * log_errors(teacher).expm1()
    return found[:, :-1].sum(dim=-1).nan_to_num(nan=torch.inf, posinf=torch.inf)


def times_log1p(factor: Tensor, divided: Tensor) -> Tensor:
    """The value of factor * ln(1 + divided / factor), 0 where the factor is.

    The quotient is kept in log space: of a tiny factor it overflows, and the product does not.
    """
    inside = torch.logaddexp(divided.new_zeros(()), divided.log() - factor.log())
    return torch.where(factor > 0, factor * inside, 0.0)
