"""Reading a teacher-logit store: any row, by id, without loading the others."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from kd.errors import ArtifactError
from kd.logits.index import Shard, read_index
from kd.logits.topk import TeacherRow
from kd.provenance.canonical import file_digest


class LogitReader:
    """A store on disk, as a mapping from row ids to `TeacherRow`.

    Shards are memory-mapped when a row of theirs is first asked for.

    Raises:
        ArtifactError: the store is missing, incomplete, or a shard is not as its index says.
    """

    def __init__(self, folder: Path, *, verify: bool = False) -> None:
        """Open the store `folder`; with `verify` the digest of every shard is checked too."""
        self._folder = folder
        self.index = read_index(folder)
        self._places = {
            row_id: (shard, position)
            for shard in self.index.shards
            for position, row_id in enumerate(shard.ids)
        }
        self._open: dict[str, Any] = {}
        for shard in self.index.shards:
            self._check(shard, verify)

    def __len__(self) -> int:
        return len(self._places)

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __contains__(self, row_id: object) -> bool:
        return row_id in self._places

    @property
    def ids(self) -> list[str]:
        """All row ids, in the order in which they were written."""
        return list(self._places)

    def __getitem__(self, row_id: str) -> TeacherRow:
        """The row `row_id`.

        Raises:
            ArtifactError: there is no such row, or its shard cannot be read.
        """
        if row_id not in self._places:
            raise ArtifactError(
                f"{self._folder}: no row '{row_id}' among {len(self)}. "
                "Extract the logits of the same rows that are distilled."
            )
        shard, position = self._places[row_id]
        try:
            return self._read(shard, position)
        except (SafetensorError, OSError, IndexError) as error:
            raise self._damaged(shard, f"row '{row_id}' cannot be read: {error}") from None

    def _read(self, shard: Shard, position: int) -> TeacherRow:
        if shard.file not in self._open:
            self._open[shard.file] = safe_open(self._folder / shard.file, framework="pt")
        read = self._open[shard.file].get_slice
        start, stop = read("token_offsets")[position : position + 2].tolist()
        offsets = read("entry_offsets")[start : stop + 1]
        first, last = int(offsets[0]), int(offsets[-1])
        return TeacherRow(
            id=shard.ids[position],
            token_ids=read("token_ids")[start:stop],
            token_log_probs=read("token_log_probs")[start:stop],
            ends=read("ends")[start:stop],
            offsets=offsets - first,
            ids=read("ids")[first:last],
            log_probs=read("log_probs")[first:last],
            dropped=read("dropped")[start:stop],
            vocabulary=self.index.vocabulary,
        )

    def _check(self, shard: Shard, verify: bool) -> None:
        path = self._folder / shard.file
        if not path.is_file():
            raise self._damaged(shard, "it is missing")
        if path.stat().st_size != shard.bytes:
            raise self._damaged(shard, f"{path.stat().st_size} bytes instead of {shard.bytes}")
        if verify and file_digest(path) != shard.sha256:
            raise self._damaged(shard, "its bytes differ from those that were written")

    def _damaged(self, shard: Shard, reason: str) -> ArtifactError:
        return ArtifactError(
            f"{self._folder / shard.file}: damaged shard ({reason}). "
            "Run the extraction again (`kd extract --help`)."
        )
