"""Answers' next-token distributions, cut down to the tokens that matter."""

from collections.abc import Sequence

import numpy as np
from torch import Tensor

from kd.logits.rows import ROUNDING, AnswerBatch, StoredRows, TeacherRow, exact_row
from kd.logits.selection import Floats, select


def keep_top_k(
    row_id: str,
    token_ids: Tensor,
    logits: Tensor,
    *,
    ends: Tensor,
    epsilon: float,
    cap: int | None,
    temperatures: Sequence[float] = (),
) -> TeacherRow:
    """Keep of each distribution the fewest tokens that leave a mass of at most `epsilon`.

    At least one and at most `cap` tokens are kept. Equal probabilities are ordered by token
    id. With `epsilon` 0 and no cap, nothing possible is dropped. Logarithms are right within
    `ROUNDING`, and so, upwards, are
    the log-odds of the dropped mass.

    Args:
        row_id: the row's id.
        token_ids: [T], the answer's tokens.
        logits: [T, V], logits[t] predicts token_ids[t].
        ends: [T], byte of the answer's text at which each token ends.
        epsilon: mass that may be dropped.
        cap: number of tokens that may be kept; None for any.
        temperatures: others than 1 at which the dropped mass is to be known, too.

    Raises:
        ArtifactError: shapes do not fit, or a logit is NaN or +inf.
    """
    answer = AnswerBatch([row_id], [len(token_ids)], token_ids, ends)
    rows = keep_rows(answer, logits, epsilon, cap, temperatures)
    return exact_row(rows, logits.shape[-1], temperatures)


def keep_rows(
    answers: AnswerBatch,
    logits: Tensor,
    epsilon: float,
    cap: int | None,
    temperatures: Sequence[float] = (),
) -> StoredRows:
    """`keep_top_k` for several rows at once; what it keeps of each does not depend on the others.

    Raises:
        ArtifactError: shapes do not fit, or a logit is NaN or +inf.
    """
    answers.check(logits)
    found = select(logits, answers.tokens, epsilon, cap, temperatures)
    return StoredRows(
        ids=list(answers.ids),
        lengths=np.asarray(answers.lengths, dtype=np.int64),
        tokens=answers.tokens.cpu().numpy(),
        own=found.own.astype(np.float32),
        ends=answers.ends.cpu().numpy(),
        counts=found.counts,
        kept=found.ids,
        log_probs=found.log_probs,
        dropped=_rounded_up(found.dropped),
    )


def _rounded_up(masses: Floats) -> Floats:
    """Masses of `ROUNDING` more log-odds, so that what they leave of 1 keeps its digits, too."""
    rounded: Floats = masses / (masses + (1 - masses) * np.exp(-ROUNDING))
    return rounded
