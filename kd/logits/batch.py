"""From ragged stored rows to the padded batch that losses read."""

from collections.abc import Sequence

import torch
from torch import Tensor

from kd.errors import ArtifactError
from kd.logits.rows import TeacherRow
from kd.losses.teacher import TeacherLogits


def collate(rows: Sequence[TeacherRow]) -> TeacherLogits:
    """Pad `rows` to the longest answer T and the largest number K of kept tokens.

    Raises:
        ArtifactError: no rows, or rows of teachers with different vocabularies, or of stores that
            do not hold the same.
    """
    vocabularies = {row.vocabulary for row in rows}
    if len(vocabularies) != 1:
        raise ArtifactError(
            f"rows of {len(vocabularies)} vocabularies cannot form a batch: "
            "take one or more rows, all of one teacher."
        )
    _require_one_kind(rows)
    lengths = torch.tensor([len(row) for row in rows])
    padding = _Padding(lengths, torch.cat([row.offsets.diff() for row in rows]))
    one = rows[0]
    return TeacherLogits(
        ids=padding.ranks() if one.ids is None else padding.entries([row.ids for row in rows]),
        log_probs=padding.entries([row.log_probs for row in rows], -torch.inf),
        dropped=padding.tokens([row.dropped[:, 0] for row in rows]).float(),
        lengths=lengths,
        vocabulary=vocabularies.pop(),
        tokens=None if one.token_ids is None else padding.tokens([row.token_ids for row in rows]),
        token_log_probs=padding.tokens([row.token_log_probs for row in rows]),
        token_ends=padding.tokens([row.ends for row in rows]),
        has_ids=one.ids is not None,
        log_errors=_of_all(padding, [row.log_errors for row in rows]),
        dropped_error=max(row.dropped_error for row in rows),
        dropped_at={
            temperature: padding.tokens([row.dropped[:, column] for row in rows])
            for column, temperature in enumerate(one.temperatures, start=1)
        },
        draws=one.draws,
        entropies=_of_all(padding, [row.entropies for row in rows]),
    )


def _require_one_kind(rows: Sequence[TeacherRow]) -> None:
    kinds: dict[str, set[object]] = {
        "temperatures": {row.temperatures for row in rows},
        "draws": {row.draws for row in rows},
        "token ids": {row.ids is not None for row in rows},
        "log_errors": {row.log_errors is not None for row in rows},
    }
    for name, found in kinds.items():
        if len(found) > 1:
            raise ArtifactError(
                f"rows of stores with different {name} cannot form a batch "
                f"({' and '.join(sorted(map(str, found)))}): take all rows from one store."
            )


def _of_all(padding: "_Padding", parts: Sequence[Tensor | None]) -> Tensor | None:
    return None if parts[0] is None else padding.tokens(parts)


class _Padding:
    """Where the tokens and the entries of some rows go in padded tensors."""

    def __init__(self, lengths: Tensor, counts: Tensor) -> None:
        length, width = (int(sizes.max()) if len(sizes) else 0 for sizes in (lengths, counts))
        self._token = torch.arange(length) < lengths[:, None]  # [B, T]
        self._entry = torch.zeros(*self._token.shape, max(width, 1), dtype=torch.bool)
        # Row by row and token by token, as the entries are.
        self._entry[self._token] = torch.arange(max(width, 1)) < counts[:, None]

    def tokens(self, parts: Sequence[Tensor | None]) -> Tensor:
        """One value for each token, [B, T]; whole numbers become int64."""
        return _fill(self._token, parts, 0)

    def entries(self, parts: Sequence[Tensor | None], value: float = 0) -> Tensor:
        """One value for each kept token, [B, T, K]."""
        return _fill(self._entry, parts, value)

    def ranks(self) -> Tensor:
        """What stands for the ids of kept tokens that have none, [B, T, K]."""
        return torch.arange(self._entry.shape[-1]).expand(self._entry.shape)


def _fill(places: Tensor, parts: Sequence[Tensor | None], value: float) -> Tensor:
    found = torch.cat([part for part in parts if part is not None])
    kind = found.dtype if found.is_floating_point() else torch.int64
    padded = torch.full(places.shape, value, dtype=kind)
    padded[places] = found.to(kind)
    return padded
