"""Writing a teacher-logit store: safetensors shards, then the index."""

from pathlib import Path
from types import TracebackType

import torch
from safetensors.torch import save_file
from torch import Tensor

from kd.errors import ArtifactError
from kd.logits.index import INDEX_FILE, Index, Shard, write_index
from kd.logits.topk import TeacherRow, keep_top_k
from kd.provenance.canonical import file_digest
from kd.provenance.files import atomic_file

SHARD_ENTRIES = 1 << 22  # 32 MiB of token ids and log-probabilities


class LogitWriter:
    """Writes the rows of one teacher into a folder, in the order in which they are added.

    Equal rows give equal bytes. Entering removes whatever store the folder held; the index
    is written when the block succeeds, and not at all if it fails.
    """

    def __init__(
        self,
        folder: Path,
        *,
        vocabulary: int,
        epsilon: float,
        cap: int | None = None,
        tokenizer: str | None = None,
        shard_entries: int = SHARD_ENTRIES,
    ) -> None:
        """Prepare to write into `folder`; the bounds are those of `keep_top_k`."""
        self._folder = folder
        self._vocabulary = vocabulary
        self._epsilon = epsilon
        self._cap = cap
        self._tokenizer = tokenizer
        self._shard_entries = shard_entries
        self._pending: list[TeacherRow] = []
        self._shards: list[Shard] = []
        self._ids: set[str] = set()

    def __enter__(self) -> "LogitWriter":
        self._folder.mkdir(parents=True, exist_ok=True)
        # The index goes first: no moment in which it names shards that are gone.
        (self._folder / INDEX_FILE).unlink(missing_ok=True)
        for stale in self._folder.glob("*.safetensors"):
            stale.unlink()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if kind is None:
            self._flush()
            write_index(self._index(), self._folder)

    def add(self, row_id: str, token_ids: Tensor, logits: Tensor, *, ends: Tensor) -> None:
        """Add the answer `token_ids` [T] of row `row_id`; logits[t] [T, V] predicts token t.

        `ends` [T] are the bytes of the answer's text at which its tokens end.

        Raises:
            ArtifactError: the id was added before, or shapes or values do not fit.
        """
        if row_id in self._ids:
            raise ArtifactError(f"row '{row_id}' was already added: ids must be unique.")
        if logits.shape[-1] != self._vocabulary:
            raise ArtifactError(
                f"row '{row_id}': logits over {logits.shape[-1]} tokens in a store for "
                f"{self._vocabulary}: one store holds one teacher."
            )
        self._ids.add(row_id)
        self._pending.append(
            keep_top_k(row_id, token_ids, logits, ends=ends, epsilon=self._epsilon, cap=self._cap)
        )
        if sum(len(row.ids) for row in self._pending) >= self._shard_entries:
            self._flush()

    def _flush(self) -> None:
        if not self._pending:
            return
        path = self._folder / f"shard-{len(self._shards):05d}.safetensors"
        with atomic_file(path) as staging:
            save_file(_pack(self._pending), staging)
        self._shards.append(
            Shard(
                file=path.name,
                bytes=path.stat().st_size,
                sha256=file_digest(path),
                ids=[row.id for row in self._pending],
            )
        )
        self._pending = []

    def _index(self) -> Index:
        return Index(
            vocabulary=self._vocabulary,
            tokenizer=self._tokenizer,
            epsilon=self._epsilon,
            cap=self._cap,
            shards=self._shards,
        )


def _pack(rows: list[TeacherRow]) -> dict[str, Tensor]:
    """Lay rows end to end: rows are ranges of tokens, tokens are ranges of entries."""
    return {
        "token_offsets": _offsets(torch.tensor([len(row) for row in rows])),
        "entry_offsets": _offsets(torch.cat([row.offsets.diff() for row in rows])),
        "token_ids": torch.cat([row.token_ids for row in rows]),
        "token_log_probs": torch.cat([row.token_log_probs for row in rows]),
        "ends": torch.cat([row.ends for row in rows]),
        "dropped": torch.cat([row.dropped for row in rows]),
        "ids": torch.cat([row.ids for row in rows]),
        "log_probs": torch.cat([row.log_probs for row in rows]),
    }


def _offsets(counts: Tensor) -> Tensor:
    return torch.nn.functional.pad(counts.cumsum(0), (1, 0))
