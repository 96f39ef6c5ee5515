"""The store on disk: what is written is read, and what is damaged is refused."""

import json
import math
import weakref
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from kd.errors import ArtifactError
from kd.logits import LogitReader, LogitWriter, Origin, TeacherRow, collate, keep_top_k
from kd.logits.summary import summarise
from tests.logits.stores import IDS, VOCABULARY, contents, example, shards, write


@pytest.mark.parametrize("shard_entries", [1, 20, 1 << 22])
def test_rows_come_back_as_they_were_kept(tmp_path: Path, shard_entries: int) -> None:
    folder = write(tmp_path / "store", shard_entries=shard_entries, precision="full")
    reader = LogitReader(folder, verify=True)
    assert reader.ids == list(reader) == IDS and len(reader) == len(IDS)
    assert "a" in reader and "z" not in reader
    for row_id in reversed(IDS):
        row = reader[row_id]
        expected = keep_top_k(row_id, **example(row_id), epsilon=0.05, cap=6)
        for field, value in vars(expected).items():
            read = getattr(row, field)
            assert torch.equal(read, value) if isinstance(value, Tensor) else read == value
            assert not isinstance(value, Tensor) or read.dtype == value.dtype


def test_compact_rows_hold_the_same_tokens_as_exactly_as_they_say(tmp_path: Path) -> None:
    reader = LogitReader(write(tmp_path / "store", temperatures=(2.0,)))
    for row_id in IDS:
        row = reader[row_id]
        exact = keep_top_k(row_id, **example(row_id), epsilon=0.05, cap=6, temperatures=(2.0,))
        for field in ("token_ids", "token_log_probs", "ends", "offsets", "ids"):
            assert torch.equal(getattr(row, field), getattr(exact, field))
        assert row.log_errors is not None and row.temperatures == (2.0,)
        errors = row.log_errors.repeat_interleave(row.offsets.diff()) + 2.0**-17
        assert ((row.log_probs - exact.log_probs).abs() <= errors).all()
        largest = exact.dropped * math.exp(row.dropped_error)
        assert (exact.dropped <= row.dropped * (1 + 1e-6)).all()
        assert (row.dropped <= largest * (1 + 1e-6)).all()


def test_without_ids_a_store_holds_sorted_probabilities_alone(tmp_path: Path) -> None:
    full = LogitReader(write(tmp_path / "with"))
    store = LogitReader(write(tmp_path / "without", with_ids=False))
    assert full["a"].ids is not None and store["a"].ids is None and store["a"].token_ids is None
    for row_id in IDS:
        assert torch.equal(store[row_id].log_probs, full[row_id].log_probs)
    one, two = (collate([reader[row_id] for row_id in IDS]) for reader in (full, store))
    assert one.has_ids and not two.has_ids
    assert torch.equal(one.log_probs, two.log_probs)
    assert two.ids[0, 0].tolist() == list(range(two.ids.shape[-1]))


def test_token_ids_of_a_large_vocabulary_come_back(tmp_path: Path) -> None:
    vocabulary = 70_000
    logits = torch.full((2, vocabulary), -torch.inf)
    logits[0, [65_535, 65_536, 69_999]] = torch.tensor([3.0, 2.0, 1.0])
    logits[1, 1] = 0.0
    folder = tmp_path / "store"
    with LogitWriter(folder, vocabulary=vocabulary, epsilon=1e-4) as writer:
        writer.add("a", torch.tensor([69_999, 1]), logits, ends=torch.tensor([1, 2]))
    row = LogitReader(folder)["a"]
    assert row.ids is not None and row.ids.tolist() == [65_535, 65_536, 69_999, 1]
    assert row.token_ids is not None and row.token_ids.tolist() == [69_999, 1]


def test_the_index_says_what_the_store_is(tmp_path: Path) -> None:
    origin = Origin(
        model="m", revision="c", tokenizer="t", template="p", answers="a", dtype="bfloat16"
    )
    index = LogitReader(write(tmp_path / "store", origin=origin)).index
    assert (index.schema_version, index.vocabulary, index.epsilon, index.cap) == (5, 11, 0.05, 6)
    assert index.origin == origin and index.tokenizer == "t" and index.precision == "compact"
    assert index.step == pytest.approx(math.log(11 / 0.05) / 65534)


def test_what_a_store_holds_in_numbers(tmp_path: Path) -> None:
    reader = LogitReader(write(tmp_path / "store"))
    found = summarise(reader)
    tokens = sum(len(example(row_id)["token_ids"]) for row_id in IDS)
    dropped = torch.cat([reader[row_id].dropped[:, 0] for row_id in IDS])
    assert found["rows"] == len(IDS) and found["answer_tokens"] == tokens
    assert found["dropped_max"] == dropped.max() and 1 < found["kept"] <= 6
    assert found["bytes_per_token"] > 1
    with LogitWriter(tmp_path / "nothing", vocabulary=3) as writer:
        assert writer.done == frozenset()
    assert summarise(LogitReader(tmp_path / "nothing")) == {"rows": 0, "answer_tokens": 0}


class Watched(LogitReader):
    """Counts how many of the rows that it gave are alive at once."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.alive, self.most = 0, 0

    def __getitem__(self, row_id: str) -> TeacherRow:
        row = super().__getitem__(row_id)
        self.alive += 1
        self.most = max(self.most, self.alive)
        weakref.finalize(row, self._gone)
        return row

    def _gone(self) -> None:
        self.alive -= 1


@pytest.mark.parametrize("settings", [{}, {"draws": 4, "epsilon": 0.0, "cap": None}])
def test_the_numbers_of_a_store_take_the_memory_of_a_row(
    tmp_path: Path, settings: dict[str, Any]
) -> None:
    reader = Watched(write(tmp_path / "store", **settings))
    assert summarise(reader)["rows"] == len(IDS)
    assert 1 <= reader.most <= 2 and reader.alive == 0


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"epsilon": 3.0}, "epsilon"),
        ({"epsilon": -1.0}, "epsilon"),
        ({"epsilon": math.nan}, "epsilon"),
        ({"epsilon": math.inf}, "epsilon"),
        ({"epsilon": 0.1, "cap": 0}, "cap"),
        ({"epsilon": 0.1, "vocabulary": 0}, "vocabulary"),
        ({"epsilon": 0.1, "temperatures": (0.0,)}, "temperatures"),
        ({"epsilon": 0.1, "temperatures": (2.0, 2.0)}, "temperatures must be distinct"),
        ({"epsilon": 0.1, "temperatures": (1.0,)}, "others than 1"),
        ({"draws": 1}, "draws.number"),
        ({"draws": 0}, "draws.number"),
        ({"draws": 9, "temperatures": (2.0,)}, "no temperatures"),
        ({"epsilon": 0.0, "precision": "compact"}, "need an epsilon above 0"),
        ({"epsilon": 0.1, "precision": "half"}, "precision"),
    ],
)
def test_settings_that_no_store_can_have_are_refused(
    tmp_path: Path, settings: dict[str, Any], named: str
) -> None:
    with pytest.raises(ArtifactError, match=rf"store: no store.*{named}"):
        LogitWriter(tmp_path / "store", **({"vocabulary": 11} | settings))


def test_equal_rows_give_equal_bytes_wherever_and_whenever(tmp_path: Path) -> None:
    one, two = write(tmp_path / "one"), write(tmp_path / "elsewhere" / "two")
    assert len(shards(one)) > 1
    assert contents(one) == contents(two)


def test_writing_again_leaves_nothing_of_the_former_store(tmp_path: Path) -> None:
    folder = write(tmp_path / "store", shard_entries=1)
    fresh = write(tmp_path / "fresh", ["a"])
    again = write(folder, ["a"])
    assert [p.name for p in sorted(again.iterdir())] == [p.name for p in sorted(fresh.iterdir())]


@pytest.mark.parametrize(
    "change",
    [
        {"schema_version": 3},
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


def test_an_index_of_an_older_version_is_refused_by_its_number(tmp_path: Path) -> None:
    index = write(tmp_path / "store") / "index.json"
    index.write_text(json.dumps(json.loads(index.read_text()) | {"schema_version": 4}))
    with pytest.raises(ArtifactError, match=r"version 5 .*of version 4.* Run the extraction again"):
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
