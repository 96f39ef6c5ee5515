"""Writing a teacher-logit store: safetensors shards, then the index, then its place."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

from filelock import FileLock, Timeout
from safetensors.numpy import save
from torch import Tensor

from kd.errors import ArtifactError
from kd.logits.codec import step_of
from kd.logits.drawing import draw_rows
from kd.logits.index import Draws, Index, Origin, Shard, write_index
from kd.logits.rows import AnswerBatch, StoredRows
from kd.logits.shards import Layout, pack
from kd.logits.topk import keep_rows
from kd.provenance.canonical import canonical_json, file_digest
from kd.provenance.files import atomic_file, write_text

SHARD_ENTRIES = 1 << 23  # 32 MiB of token ids and compact log-probabilities
JOURNAL = "unfinished.json"


class LogitWriter:
    """Writes the rows of one teacher into a folder, in the order in which they are added.

    Equal rows give equal bytes. Everything is written beside the folder (`.<name>.partial`) and
    takes its place when the block succeeds: until then the folder holds what it held before, and
    an unfinished store is none. A block that fails, or is killed, leaves its finished shards; the
    next writer with the same settings and the same `fingerprint` keeps them (`done`) and goes on
    behind them. A second writer at the same time is refused.

    Raises:
        ArtifactError: another process writes the store, or a setting is not defined.
    """

    def __init__(  # noqa: PLR0913 - one keyword for each thing that a store may be
        self,
        folder: Path,
        *,
        vocabulary: int,
        epsilon: float = 0.0,
        cap: int | None = None,
        ids: bool = True,
        precision: Literal["compact", "full"] | None = None,
        temperatures: Sequence[float] = (),
        draws: int | None = None,
        seed: int = 0,
        origin: Origin | None = None,
        tokenizer: str | None = None,
        fingerprint: str | None = None,
        shard_entries: int = SHARD_ENTRIES,
    ) -> None:
        """Prepare to write into `folder`.

        Args:
            folder: where the store is to be.
            vocabulary: tokens of the teacher's whole vocabulary.
            epsilon: mass that may be dropped (see `keep_top_k`).
            cap: number of tokens that may be kept.
            ids: store token ids; without them only losses that read sorted values can be used.
            precision: `compact`, 16 bits a log-probability, or `full`, float32. By default
                compact, but full where `epsilon` is 0: nothing then bounds a probability below.
            temperatures: others than 1 at which the dropped mass is to be known.
            draws: draw so many tokens instead of keeping the likeliest (see `draw_rows`).
            seed: of the draws.
            origin: where the logits are from.
            tokenizer: digest of the teacher's vocabulary, where there is no `origin`.
            fingerprint: of all that decides on the rows; only with it is an unfinished store
                continued.
            shard_entries: stored tokens after which a shard is written.
        """
        precision = precision or ("compact" if epsilon > 0 or draws else "full")
        compact = precision == "compact" and not draws
        if compact and epsilon <= 0:
            raise ArtifactError(
                "compact logits need an epsilon above 0, which bounds how small a kept "
                "probability can be: set one, or store them in full precision."
            )
        self._index = Index(
            vocabulary=vocabulary,
            epsilon=epsilon,
            cap=cap,
            ids=ids,
            precision=precision,
            step=step_of(epsilon, vocabulary) if compact else None,
            temperatures=list(temperatures),
            draws=Draws(number=draws, seed=seed) if draws else None,
            origin=origin or Origin(tokenizer=tokenizer),
            shards=[],
        )
        self._layout = Layout.of(self._index)
        self._folder = folder
        self._partial = folder.with_name(f".{folder.name}.partial")
        self._lock = FileLock(folder.with_name(f".{folder.name}.writer.lock"))
        self._fingerprint = fingerprint
        self._shard_entries = shard_entries
        self._pending: list[StoredRows] = []
        self._shards: list[Shard] = []
        self._ids: set[str] = set()
        self.done: frozenset[str] = frozenset()  # ids of rows that an earlier writer has written

    def __enter__(self) -> "LogitWriter":
        self._folder.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._lock.acquire(timeout=0)
        except Timeout:
            raise ArtifactError(
                f"{self._folder}: another process is writing this store. Wait for it, or end it."
            ) from None
        self._shards = self._finished_shards()
        self._ids = {row_id for shard in self._shards for row_id in shard.ids}
        self.done = frozenset(self._ids)
        known = {JOURNAL, *(shard.file for shard in self._shards)}
        self._partial.mkdir(exist_ok=True)
        for file in self._partial.iterdir():
            if file.name not in known:
                file.unlink()
        self._write_journal()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            if kind is None:
                self._flush()
                write_index(self._index.model_copy(update={"shards": self._shards}), self._partial)
                (self._partial / JOURNAL).unlink()
                self._take_place()
        finally:
            self._lock.release()

    def add(self, row_id: str, token_ids: Tensor, logits: Tensor, *, ends: Tensor) -> None:
        """Add the answer `token_ids` [T] of row `row_id`; logits[t] [T, V] predicts token t.

        `ends` [T] are the bytes of the answer's text at which its tokens end.

        Raises:
            ArtifactError: the id was added before, or shapes or values do not fit.
        """
        self.add_batch(AnswerBatch([row_id], [len(token_ids)], token_ids, ends), logits)

    def add_batch(self, answers: AnswerBatch, logits: Tensor) -> None:
        """Add the answers of several rows, with their logits [M, V]. A shard ends with a batch.

        Raises:
            ArtifactError: an id was added before, or shapes or values do not fit.
        """
        index = self._index
        for row_id in answers.ids:
            if row_id in self._ids:
                raise ArtifactError(f"row '{row_id}' was already added: ids must be unique.")
            self._ids.add(row_id)
        if logits.shape[-1] != index.vocabulary:
            raise ArtifactError(
                f"row '{answers.ids[0]}': logits over {logits.shape[-1]} tokens in a store for "
                f"{index.vocabulary}: one store holds one teacher."
            )
        if index.draws is not None:
            rows = draw_rows(answers, logits, index.draws.number, index.draws.seed)
        else:
            rows = keep_rows(answers, logits, index.epsilon, index.cap, index.temperatures)
        self._pending.append(rows)
        if sum(len(part.kept) for part in self._pending) >= self._shard_entries:
            self._flush()

    def _flush(self) -> None:
        if not self._pending:
            return
        path = self._partial / f"shard-{len(self._shards):05d}.safetensors"
        with atomic_file(path) as staging:
            # Not save_file, which lets nobody else read what it writes.
            staging.write_bytes(save(pack(self._pending, self._layout)))
        self._shards.append(
            Shard(
                file=path.name,
                bytes=path.stat().st_size,
                sha256=file_digest(path),
                ids=[row_id for part in self._pending for row_id in part.ids],
            )
        )
        self._pending = []
        self._write_journal()

    def _write_journal(self) -> None:
        journal = self._settings() | {"shards": [shard.model_dump() for shard in self._shards]}
        write_text(self._partial / JOURNAL, canonical_json(journal) + "\n")

    def _settings(self) -> dict[str, Any]:
        index = self._index.model_dump(mode="json", exclude={"shards"})
        return {"index": index, "fingerprint": self._fingerprint, "every": self._shard_entries}

    def _finished_shards(self) -> list[Shard]:
        """The shards of an interrupted writer of the same rows, up to the first damaged one."""
        try:
            journal = json.loads((self._partial / JOURNAL).read_text(encoding="utf-8"))
            shards = [Shard.model_validate(shard) for shard in journal.pop("shards")]
        except (OSError, ValueError, KeyError, AttributeError, TypeError):
            return []
        if self._fingerprint is None or journal != self._settings():
            return []
        sound = [self._is_sound(shard) for shard in shards]
        return shards[: (*sound, False).index(False)]

    def _is_sound(self, shard: Shard) -> bool:
        path = self._partial / shard.file
        return path.is_file() and file_digest(path) == shard.sha256

    def _take_place(self) -> None:
        old = self._folder.with_name(f".{self._folder.name}.old")
        shutil.rmtree(old, ignore_errors=True)
        if self._folder.exists():
            self._folder.replace(old)  # moved aside: the gap without any store is one rename
        self._partial.replace(self._folder)
        shutil.rmtree(old, ignore_errors=True)
