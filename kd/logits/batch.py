"""From ragged stored rows to the padded batch that losses read."""

from collections.abc import Sequence

import torch

from kd.errors import ArtifactError
from kd.logits.topk import TeacherRow
from kd.losses.teacher import TeacherLogits


def collate(rows: Sequence[TeacherRow]) -> TeacherLogits:
    """Pad `rows` to the longest answer T and the largest number K of kept tokens.

    Raises:
        ArtifactError: no rows, or rows of teachers with different vocabularies.
    """
    vocabularies = {row.vocabulary for row in rows}
    if len(vocabularies) != 1:
        raise ArtifactError(
            f"rows of {len(vocabularies)} vocabularies cannot form a batch: "
            "take one or more rows, all of one teacher."
        )
    counts = [row.offsets.diff() for row in rows]
    length = max(len(row) for row in rows)
    width = max((int(count.max()) for count in counts if len(count)), default=1)
    ids = torch.zeros(len(rows), length, width, dtype=torch.int64)
    log_probs = torch.full((len(rows), length, width), -torch.inf)
    dropped = torch.zeros(len(rows), length)
    tokens = torch.zeros(len(rows), length, dtype=torch.int64)
    ends = torch.zeros_like(tokens)
    own = torch.zeros(len(rows), length)
    for index, (row, count) in enumerate(zip(rows, counts, strict=True)):
        kept = torch.arange(width) < count[:, None]  # [T, K]; row by row, as the entries are
        ids[index, : len(row)][kept] = row.ids.long()
        log_probs[index, : len(row)][kept] = row.log_probs
        dropped[index, : len(row)] = row.dropped
        tokens[index, : len(row)] = row.token_ids.long()
        ends[index, : len(row)] = row.ends.long()
        own[index, : len(row)] = row.token_log_probs
    return TeacherLogits(
        ids=ids,
        log_probs=log_probs,
        dropped=dropped,
        lengths=torch.tensor([len(row) for row in rows]),
        vocabulary=vocabularies.pop(),
        tokens=tokens,
        token_log_probs=own,
        token_ends=ends,
    )
