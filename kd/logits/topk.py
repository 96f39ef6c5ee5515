"""One answer's next-token distributions, cut down to the tokens that matter."""

from dataclasses import dataclass

import torch
from torch import Tensor

from kd.errors import ArtifactError


@dataclass(frozen=True)
class TeacherRow:
    """The distributions with which a teacher predicted the T tokens of one answer.

    Ragged: the entries of token t are those from `offsets[t]` up to `offsets[t + 1]`.
    """

    id: str
    token_ids: Tensor  # [T] int32: the answer itself, in the teacher's tokens
    token_log_probs: Tensor  # [T] float32: what the teacher gave to these, kept or not
    ends: Tensor  # [T] int32: byte of the answer's text at which each of them ends
    offsets: Tensor  # [T + 1] int64
    ids: Tensor  # [E] int32: kept tokens, likeliest first
    log_probs: Tensor  # [E] float32
    dropped: Tensor  # [T] float32: mass of the tokens that were not kept
    vocabulary: int

    def __len__(self) -> int:
        return len(self.token_ids)


def keep_top_k(
    row_id: str,
    token_ids: Tensor,
    logits: Tensor,
    *,
    ends: Tensor,
    epsilon: float,
    cap: int | None,
) -> TeacherRow:
    """Keep of each distribution the fewest tokens that leave a mass of at most `epsilon`.

    At least one and at most `cap` tokens are kept. Equal probabilities are ordered by token
    id, and every token is treated by itself in float64, so the result depends neither on the
    batch nor on its padding. With `epsilon` 0 and no cap, nothing possible is dropped.

    Args:
        row_id: the row's id.
        token_ids: [T], the answer's tokens.
        logits: [T, V], logits[t] predicts token_ids[t].
        ends: [T], byte of the answer's text at which each token ends.
        epsilon: mass that may be dropped.
        cap: number of tokens that may be kept; None for any.

    Raises:
        ArtifactError: shapes do not fit, or a logit is NaN or +inf.
    """
    if logits.ndim != 2 or not len(logits) == len(token_ids) == len(ends):
        raise ArtifactError(
            f"row '{row_id}': {len(token_ids)} answer tokens, but logits of shape "
            f"{tuple(logits.shape)} and {len(ends)} ends: pass one row of logits and one end per "
            "answer token."
        )
    unsorted = torch.log_softmax(logits.double(), dim=-1)
    own = unsorted.gather(-1, token_ids.to(logits.device, torch.int64)[:, None])[:, 0]
    log_probs, ids = unsorted.sort(descending=True, stable=True)
    if log_probs.isnan().any():
        token = int(log_probs.isnan().any(dim=-1).nonzero()[0])
        raise ArtifactError(
            f"row '{row_id}': the teacher's logits for answer token {token} are not finite: "
            "load the teacher in float32 or leave the row out."
        )
    remaining = _mass_after(log_probs.exp())
    # The first count whose remaining mass is small enough; 0 or fewer tokens are no choice.
    counts = (remaining > epsilon).sum(dim=-1) + 1
    counts = counts.clamp(max=min(cap or logits.shape[-1], logits.shape[-1]))
    kept = torch.arange(logits.shape[-1], device=logits.device) < counts[:, None]
    return TeacherRow(
        id=row_id,
        token_ids=token_ids.to("cpu", torch.int32),
        token_log_probs=own.float().cpu(),
        ends=ends.to("cpu", torch.int32),
        offsets=torch.nn.functional.pad(counts.cumsum(0), (1, 0)).cpu(),
        ids=ids[kept].to("cpu", torch.int32),
        log_probs=log_probs[kept].float().cpu(),
        dropped=remaining.gather(-1, counts[:, None] - 1)[:, 0].float().cpu(),
        vocabulary=logits.shape[-1],
    )


def _mass_after(probs: Tensor) -> Tensor:
    """Mass of all that comes after each entry of the descending `probs` [T, V].

    Summed from the small end: 1 - cumsum would leave rounding errors instead of small masses.
    """
    from_here = probs.flip(-1).cumsum(-1).flip(-1)
    return torch.nn.functional.pad(from_here[:, 1:], (0, 1))
