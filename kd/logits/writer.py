"""Writing a teacher-logit store: safetensors shards, then the index, then its place."""

import shutil
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

from pydantic import ValidationError
from safetensors.numpy import save
from torch import Tensor

from kd.errors import ArtifactError
from kd.logits.codec import step_of
from kd.logits.drawing import draw_rows
from kd.logits.index import Index, Origin, Shard, write_index
from kd.logits.journal import (
    JOURNAL,
    finished_shards,
    link_store,
    partial_of,
    write_journal,
)
from kd.logits.reader import LogitReader
from kd.logits.rows import AnswerBatch, StoredRows
from kd.logits.shards import Layout, pack
from kd.logits.topk import keep_rows
from kd.provenance.canonical import file_digest
from kd.provenance.files import atomic_file
from kd.provenance.locks import only_writer

SHARD_ENTRIES = 1 << 23  # 32 MiB of token ids and compact log-probabilities


class LogitWriter:
    """Writes the rows of one teacher into a folder, in the order in which they are added.

    Equal rows give equal bytes. Everything is written beside the folder (`.<name>.partial`) and
    takes its place when the block succeeds: until then the folder holds what it held before, and
    an unfinished store is none. A block that fails, or is killed, leaves its finished shards; the
    next writer with the same settings and the same `fingerprint` keeps them (`done`) and goes on
    behind them. So it does with those of a store that took its place, until `discard_partial` says
    that all that was to follow is done. A second writer at the same time is refused.

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
        self._index = _checked(
            folder,
            vocabulary=vocabulary,
            epsilon=epsilon,
            cap=cap,
            ids=ids,
            precision=precision,
            temperatures=list(temperatures),
            draws=None if draws is None else {"number": draws, "seed": seed},
            origin=origin or Origin(tokenizer=tokenizer),
        )
        self._layout = Layout.of(self._index)
        self._folder = folder
        self._partial = partial_of(folder)
        self._held = ExitStack()
        self._fingerprint = fingerprint
        self._shard_entries = shard_entries
        self._pending: list[StoredRows] = []
        self._shards: list[Shard] = []
        self._ids: set[str] = set()
        self.done: frozenset[str] = frozenset()  # ids of rows that an earlier writer has written

    def __enter__(self) -> "LogitWriter":
        with ExitStack() as held:
            held.enter_context(only_writer(self._folder))
            self._continue()
            self._held = held.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            if kind is None:
                self._complete()
                self._take_place()
        finally:
            self._held.close()

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

    def finish(self) -> LogitReader:
        """Complete the store, and read it before it takes its place at the end of the block."""
        self._complete()
        return LogitReader(self._partial)

    def _continue(self) -> None:
        """Take over what an earlier writer of the same rows has finished, and remove the rest."""
        self._shards = self._finished()
        self._ids = {row_id for shard in self._shards for row_id in shard.ids}
        self.done = frozenset(self._ids)
        known = {JOURNAL, *(shard.file for shard in self._shards)}
        self._partial.mkdir(parents=True, exist_ok=True)
        for file in self._partial.iterdir():
            if file.name not in known:
                file.unlink()
        self._write_journal()

    def _finished(self) -> list[Shard]:
        if self._fingerprint is None:
            return []
        return finished_shards(self._partial, self._settings())

    def _complete(self) -> None:
        self._flush()
        write_index(self._index.model_copy(update={"shards": self._shards}), self._partial)

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
        write_journal(self._partial, self._settings(), self._shards)

    def _settings(self) -> dict[str, Any]:
        index = self._index.model_dump(mode="json", exclude={"shards"})
        return {"index": index, "fingerprint": self._fingerprint, "every": self._shard_entries}

    def _take_place(self) -> None:
        old, new = (self._folder.with_name(f".{self._folder.name}.{end}") for end in ("old", "new"))
        shutil.rmtree(old, ignore_errors=True)
        if self._fingerprint is None or not link_store(self._partial, new):
            (self._partial / JOURNAL).unlink()
            new = self._partial
        if self._folder.exists():
            self._folder.replace(old)  # moved aside: the gap without any store is one rename
        new.replace(self._folder)
        shutil.rmtree(old, ignore_errors=True)


def _checked(folder: Path, **settings: Any) -> Index:
    """The index of a store with these settings, and without shards.

    Raises:
        ArtifactError: a setting is out of its range, or means nothing beside another.
    """
    try:
        index = Index(**settings, shards=[])
    except ValidationError as error:
        problem = error.errors()[0]
        names = ".".join(map(str, problem["loc"]))
        raise ArtifactError(
            f"{folder}: no store of teacher logits has such settings ({names}: {problem['msg']})."
        ) from None
    if index.precision == "full" or index.draws is not None:
        return index
    return index.model_copy(update={"step": step_of(index.epsilon, index.vocabulary)})
