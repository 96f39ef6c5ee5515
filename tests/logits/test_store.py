"""The store on disk: what is written is read, and what is damaged is refused."""

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor

from kd.errors import ArtifactError
from kd.logits import LogitReader, LogitWriter, keep_top_k
from kd.provenance.canonical import file_digest

VOCABULARY = 11
IDS = ["b", "a", "empty", "c", "ünï/ d"]


def example(row_id: str) -> dict[str, Tensor]:
    """Answer tokens [T], their logits [T, V] and ends [T] of a row, by its place in IDS."""
    length = 0 if row_id == "empty" else 2 + IDS.index(row_id)
    torch.manual_seed(IDS.index(row_id))
    return {
        "token_ids": torch.randint(VOCABULARY, (length,)),
        "logits": 3 * torch.randn(length, VOCABULARY),
        "ends": torch.randint(5, (length,)).cumsum(0),
    }


def write(folder: Path, ids: list[str] = IDS, shard_entries: int = 20) -> Path:
    with LogitWriter(
        folder, vocabulary=VOCABULARY, epsilon=0.05, cap=6, shard_entries=shard_entries
    ) as writer:
        for row_id in ids:
            writer.add(row_id, **example(row_id))
    return folder


def shards(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.safetensors"))


@pytest.mark.parametrize("shard_entries", [1, 20, 1 << 22])
def test_rows_come_back_as_they_were_kept(tmp_path: Path, shard_entries: int) -> None:
    reader = LogitReader(write(tmp_path / "store", shard_entries=shard_entries), verify=True)
    assert reader.ids == list(reader) == IDS and len(reader) == len(IDS)
    assert "a" in reader and "z" not in reader
    for row_id in reversed(IDS):
        row = reader[row_id]
        expected = keep_top_k(row_id, **example(row_id), epsilon=0.05, cap=6)
        for field, value in vars(expected).items():
            read = getattr(row, field)
            assert torch.equal(read, value) if isinstance(value, Tensor) else read == value
            assert not isinstance(value, Tensor) or read.dtype == value.dtype


def test_equal_rows_give_equal_bytes_wherever_and_whenever(tmp_path: Path) -> None:
    one, two = write(tmp_path / "one"), write(tmp_path / "elsewhere" / "two")
    assert len(shards(one)) > 1
    digests = [[(p.name, file_digest(p)) for p in sorted(s.iterdir())] for s in (one, two)]
    assert digests[0] == digests[1]


def test_an_interrupted_store_never_reads_as_complete(tmp_path: Path) -> None:
    folder = write(tmp_path / "store")
    with (
        pytest.raises(KeyboardInterrupt),
        LogitWriter(folder, vocabulary=VOCABULARY, epsilon=0.05, shard_entries=1) as writer,
    ):
        writer.add("a", **example("a"))
        raise KeyboardInterrupt
    with pytest.raises(ArtifactError, match=r"index.json is missing"):
        LogitReader(folder)


def test_writing_again_leaves_nothing_of_the_former_store(tmp_path: Path) -> None:
    folder = write(tmp_path / "store", shard_entries=1)
    fresh = write(tmp_path / "fresh", ["a"])
    again = write(folder, ["a"])
    assert [p.name for p in sorted(again.iterdir())] == [p.name for p in sorted(fresh.iterdir())]


def test_a_truncated_or_missing_shard_is_named_on_opening(tmp_path: Path) -> None:
    folder = write(tmp_path / "store")
    victim = shards(folder)[1]
    victim.write_bytes(victim.read_bytes()[:-1])
    with pytest.raises(ArtifactError, match=victim.name):
        LogitReader(folder)
    victim.unlink()
    with pytest.raises(ArtifactError, match=rf"{victim.name}.*missing"):
        LogitReader(folder)


def test_a_flipped_byte_is_found_by_verification(tmp_path: Path) -> None:
    folder = write(tmp_path / "store")
    victim = shards(folder)[0]
    content = bytearray(victim.read_bytes())
    content[-3] ^= 1
    victim.write_bytes(content)
    LogitReader(folder)
    with pytest.raises(ArtifactError, match=rf"{victim.name}.*bytes differ"):
        LogitReader(folder, verify=True)


def test_a_damaged_header_is_refused_naming_shard_and_row(tmp_path: Path) -> None:
    folder = write(tmp_path / "store")
    victim = shards(folder)[0]
    victim.write_bytes(b"\xff" * victim.stat().st_size)
    with pytest.raises(ArtifactError, match=rf"{victim.name}.*row 'b'"):
        LogitReader(folder)["b"]


@pytest.mark.parametrize(
    "change",
    [
        {"schema_version": 1},
        {"vocabulary": "eleven"},
        {"unknown": 1},
        {"shards": None},
    ],
)
def test_an_index_of_another_form_is_refused(tmp_path: Path, change: dict[str, object]) -> None:
    index = write(tmp_path / "store") / "index.json"
    index.write_text(json.dumps(json.loads(index.read_text()) | change))
    with pytest.raises(ArtifactError, match=r"index.json: no valid index"):
        LogitReader(tmp_path / "store")
    index.write_text("{")
    with pytest.raises(ArtifactError, match=r"index.json: no valid index"):
        LogitReader(tmp_path / "store")


def test_unknown_rows_and_bad_rows_are_refused_by_id(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="no row 'z' among 5"):
        LogitReader(write(tmp_path / "store"))["z"]
    with LogitWriter(tmp_path / "other", vocabulary=VOCABULARY, epsilon=0.0) as writer:
        writer.add("a", **example("a"))
        with pytest.raises(ArtifactError, match="'a' was already added"):
            writer.add("a", **example("a"))
        with pytest.raises(ArtifactError, match=r"'b'.*5 tokens in a store for 11"):
            writer.add("b", torch.zeros(2), torch.zeros(2, 5), ends=torch.zeros(2))
