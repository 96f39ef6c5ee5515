"""Reading a teacher-logit store: any row, by id, without loading the others."""

from collections.abc import Iterator
from pathlib import Path

from safetensors import SafetensorError, safe_open

from kd.errors import ArtifactError
from kd.logits.index import Index, Shard, read_index
from kd.logits.rows import TeacherRow
from kd.logits.shards import Arrays, Layout, checksum, unpack
from kd.provenance.canonical import file_digest


class LogitReader:
    """A store on disk, as a mapping from row ids to `TeacherRow`.

    Nothing is used unchecked. Opening the store compares the index with its own digest, and the
    sizes of all shards with the index.
    A shard is memory-mapped when a row of it is first asked for, after its SHA-256 was compared,
    and every row's own checksum is compared whenever it is read. Any number of processes and
    threads may read one store.

    Raises:
        ArtifactError: the store is missing, incomplete, or a shard is not as its index says.
    """

    def __init__(self, folder: Path, *, verify: bool = False) -> None:
        """Open the store `folder`; with `verify` the digests of all shards are checked now."""
        self._folder = folder
        self.index: Index = read_index(folder)
        self._layout = Layout.of(self.index)
        self._places = {
            row_id: (shard, place)
            for shard in self.index.shards
            for place, row_id in enumerate(shard.ids)
        }
        self._open: dict[str, Arrays] = {}
        for shard in self.index.shards:
            self._check_size(shard)
            if verify:
                self._check_digest(shard)

    def require_origin(self, *, answers: str, model: str | None = None) -> None:
        """Refuse a store that was not extracted from these inputs.

        Args:
            answers: SHA-256 of the teacher's answers.
            model: SHA-256 of the teacher's folder, where it is known.

        Raises:
            ArtifactError: the store is of other answers, or of another teacher.
        """
        origin = self.index.origin
        for what, found, wanted in (
            ("another file of answers", origin.answers, answers),
            ("another teacher", origin.model, model or origin.model),
        ):
            if found != wanted:
                raise ArtifactError(
                    f"{self._folder}: these logits are of {what} ({_short(found)}) than the one "
                    f"that is given ({_short(wanted)}). Give the store that belongs to it, or "
                    "run `kd extract` on it."
                )

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
            ArtifactError: there is no such row, or it or its shard is damaged.
        """
        if row_id not in self._places:
            raise ArtifactError(
                f"{self._folder}: no row '{row_id}' among {len(self)}. "
                "Extract the logits of the same rows that are distilled."
            )
        shard, place = self._places[row_id]
        try:
            return unpack(self._arrays(shard), row_id, place, self._layout)
        except (SafetensorError, OSError, ValueError, KeyError, IndexError) as error:
            raise self._damaged(shard, f"row '{row_id}' cannot be read: {error}") from None

    def _arrays(self, shard: Shard) -> Arrays:
        if shard.file not in self._open:
            self._check_digest(shard)
            self._open[shard.file] = self._map(shard)
        return self._open[shard.file]

    def _map(self, shard: Shard) -> Arrays:
        with safe_open(self._folder / shard.file, framework="pt") as file:
            return {name: file.get_tensor(name).numpy() for name in file.keys()}  # noqa: SIM118

    def _check_size(self, shard: Shard) -> None:
        path = self._folder / shard.file
        if not path.is_file():
            raise self._damaged(shard, f"it is missing, and with it {_span(shard.ids)}")
        if path.stat().st_size != shard.bytes:
            found = f"{path.stat().st_size} bytes instead of {shard.bytes}"
            raise self._damaged(shard, f"{found}, holding {_span(shard.ids)}")

    def _check_digest(self, shard: Shard) -> None:
        found = file_digest(self._folder / shard.file)
        if found == shard.sha256:
            return
        for other in self.index.shards:
            if found == other.sha256:
                raise self._damaged(
                    shard, f"its bytes are those of {other.file}: not {_span(shard.ids)}"
                )
        raise self._damaged(
            shard, f"its bytes differ from those that were written: {self._damage(shard)}"
        )

    def _damage(self, shard: Shard) -> str:
        """Which rows of a shard with other bytes are not as they were written."""
        try:
            arrays = self._map(shard)
            damaged = [
                row_id
                for place, row_id in enumerate(shard.ids)
                if checksum(arrays, row_id, place, self._layout)
                != int(arrays["row_checksums"][place])
            ]
        except (SafetensorError, OSError, ValueError, KeyError, IndexError):
            return f"{_span(shard.ids)} cannot be read"
        if not damaged:
            return f"{_span(shard.ids)} may be of another extraction"
        return _span(damaged)

    def _damaged(self, shard: Shard, reason: str) -> ArtifactError:
        return ArtifactError(
            f"{self._folder / shard.file}: damaged shard ({reason}). "
            "Run the extraction again (`kd extract --help`)."
        )


def _short(digest: str | None) -> str:
    return "unknown" if digest is None else f"SHA-256 {digest[:12]}…"


def _span(ids: list[str]) -> str:
    """Names of some rows: all of few, the first and the last of many."""
    if len(ids) > 3:
        return f"{len(ids)} rows from '{ids[0]}' to '{ids[-1]}'"
    return f"row{'s' * (len(ids) > 1)} " + ", ".join(f"'{row_id}'" for row_id in ids)
