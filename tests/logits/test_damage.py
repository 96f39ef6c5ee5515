"""A damaged store is refused before any of it is used, naming the shard and the row."""

import json
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

from kd.errors import ArtifactError
from kd.logits import LogitReader, LogitWriter, Origin
from kd.logits.index import Index, read_index, write_index
from kd.provenance.canonical import file_digest
from tests.logits.stores import IDS, VOCABULARY, example, shards, write

Damage = Callable[[Path, Path], None]


def holders(folder: Path) -> dict[str, list[str]]:
    """Row ids by the name of the shard that holds them."""
    return {shard.file: shard.ids for shard in LogitReader(folder).index.shards}


def truncated(victim: Path, _: Path) -> None:
    victim.write_bytes(victim.read_bytes()[:-1])


def half(victim: Path, _: Path) -> None:
    victim.write_bytes(victim.read_bytes()[: victim.stat().st_size // 2])


def longer(victim: Path, _: Path) -> None:
    victim.write_bytes(victim.read_bytes() + b"\0")


def missing(victim: Path, _: Path) -> None:
    victim.unlink()


def flipped(victim: Path, _: Path) -> None:
    content = bytearray(victim.read_bytes())
    content[-3] ^= 1
    victim.write_bytes(content)


def bad_header(victim: Path, _: Path) -> None:
    victim.write_bytes(b"\xff" * victim.stat().st_size)


def zeros(victim: Path, _: Path) -> None:
    victim.write_bytes(bytes(victim.stat().st_size))


def swapped(victim: Path, other: Path) -> None:
    kept = victim.read_bytes()
    victim.write_bytes(other.read_bytes())
    other.write_bytes(kept)


@pytest.mark.parametrize(
    "damage", [truncated, half, longer, missing, flipped, bad_header, zeros, swapped]
)
@pytest.mark.parametrize("verify", [False, True])
def test_no_row_of_a_damaged_shard_is_ever_read(
    tmp_path: Path, damage: Damage, verify: bool
) -> None:
    folder = write(tmp_path / "store")
    names = [path.name for path in shards(folder)]
    rows = holders(folder)[names[0]]
    damage(*shards(folder)[:2])
    with pytest.raises(ArtifactError) as refused:
        LogitReader(folder, verify=verify)[rows[-1]]
    message = str(refused.value)
    assert names[0] in message and any(f"'{row_id}'" in message for row_id in rows)


def test_swapped_shards_of_one_size_are_told_from_other_damage(tmp_path: Path) -> None:
    folder = tmp_path / "store"
    with LogitWriter(folder, vocabulary=VOCABULARY, shard_entries=1) as writer:
        for row_id in ("x", "y"):
            logits = example("c")["logits"] * (2 if row_id == "x" else 3)
            writer.add(row_id, **(example("c") | {"logits": logits}))
    first, second = shards(folder)
    assert first.stat().st_size == second.stat().st_size
    swapped(first, second)
    with pytest.raises(ArtifactError, match=rf"{first.name}.*those of {second.name}.*row 'x'"):
        LogitReader(folder)["x"]


def forge(folder: Path, victim: Path, **change: object) -> None:
    """Make an index that fits the shard as it is now."""
    index = read_index(folder)
    found = index.model_dump() | change
    found["shards"][0] |= {"sha256": file_digest(victim), "bytes": victim.stat().st_size}
    write_index(Index.model_validate(found), folder)


@pytest.mark.parametrize(
    "change",
    [
        {"epsilon": 0.01},
        {"vocabulary": 12},
        {"temperatures": [8.0]},
        {"step": 1e-3},
        {"cap": None},
        {"origin": {"model": "another"}},
        {"origin": {"dtype": "bfloat16"}},
        {"shards": []},
        {"digest": "0"},
        {"digest": None},
    ],
)
def test_an_index_that_was_altered_is_refused(tmp_path: Path, change: dict[str, object]) -> None:
    folder = write(tmp_path / "store", temperatures=(2.0,), origin=Origin(model="m"))
    index = folder / "index.json"
    index.write_text(json.dumps(json.loads(index.read_text())))
    assert LogitReader(folder).ids == IDS  # white space is no content
    index.write_text(json.dumps(json.loads(index.read_text()) | change))
    with pytest.raises(ArtifactError, match=r"store/index\.json: no valid index.*was altered"):
        LogitReader(folder)


@pytest.mark.parametrize("change", [{"step": 1e-3}, {"vocabulary": 12}, {"temperatures": [8.0]}])
def test_rows_under_another_layout_are_refused_even_where_the_index_was_forged(
    tmp_path: Path, change: dict[str, object]
) -> None:
    folder = write(tmp_path / "store", temperatures=(2.0,))
    first = shards(folder)[0]
    forge(folder, first, **change)
    with pytest.raises(ArtifactError, match=rf"{first.name}.*row 'b'.*checksum"):
        LogitReader(folder)["b"]


def test_a_row_is_checked_even_where_the_digest_was_forged(tmp_path: Path) -> None:
    """A shard that was made anew, with a digest that fits: its rows still do not."""
    folder = write(tmp_path / "store", shard_entries=1 << 20)
    (victim,) = shards(folder)
    arrays = load_file(victim)
    arrays["log_probs"][5] += 1  # of row 'b', the first one
    save_file(arrays, victim)
    forge(folder, victim)
    reader = LogitReader(folder, verify=True)
    with pytest.raises(ArtifactError, match=rf"{victim.name}.*row 'b'.*checksum"):
        reader["b"]
    assert len(reader["a"]) == 3


def test_damage_names_the_rows_that_it_hit(tmp_path: Path) -> None:
    folder = write(tmp_path / "store", shard_entries=1 << 20)
    (victim,) = shards(folder)
    arrays = load_file(victim)
    place = int(arrays["row_entries"][3])  # the first entry of row 'c'
    content, needle = bytearray(victim.read_bytes()), arrays["log_probs"].tobytes()
    content[content.find(needle) + 2 * place] ^= 1
    victim.write_bytes(content)
    with pytest.raises(ArtifactError, match=rf"{victim.name}.*bytes differ.*: row 'c'\)"):
        LogitReader(folder)["a"]


def test_a_shard_of_another_extraction_is_refused(tmp_path: Path) -> None:
    """Stale: the same rows, kept with other settings, so that every row is whole in itself."""
    folder = write(tmp_path / "store", ["a", "c"], precision="full", epsilon=0.0)
    stale = write(tmp_path / "stale", ["a", "c"], precision="full", epsilon=1e-9)
    arrays = load_file(shards(stale)[0])
    arrays["token_log_probs"] = arrays["token_log_probs"] - np.float32(0.1)
    save_file(arrays, shards(stale)[0])
    shutil.copy(shards(stale)[0], shards(folder)[0])
    with pytest.raises(ArtifactError, match=r"shard-00000.*'a'"):
        LogitReader(folder)["c"]


def test_rows_of_two_origins_are_told_apart_by_the_index(tmp_path: Path) -> None:
    one, two = (
        LogitReader(write(tmp_path / name, origin=Origin(model=name))).index
        for name in ("one", "two")
    )
    assert one.origin != two.origin and one.shards == two.shards


def _read_all(folder: str) -> float:
    reader = LogitReader(Path(folder))
    return sum(float(reader[row_id].log_probs.sum()) for row_id in [*IDS, *reversed(IDS)] * 20)


def test_threads_and_processes_read_at_once(tmp_path: Path) -> None:
    folder = str(write(tmp_path / "store"))
    expected = _read_all(folder)
    reader = LogitReader(Path(folder))
    with ThreadPoolExecutor(8) as threads:
        rows = list(threads.map(lambda n: reader[IDS[n % len(IDS)]], range(200)))
    for number, row in enumerate(rows):
        assert torch.equal(row.log_probs, LogitReader(Path(folder))[IDS[number % 5]].log_probs)
    # Not by forking: this process has threads, whose locks a fork would inherit.
    with get_context("forkserver").Pool(3) as processes:
        assert processes.map(_read_all, [folder] * 3) == [expected] * 3


def test_a_reader_keeps_what_it_opened_while_the_store_is_written_again(tmp_path: Path) -> None:
    folder = write(tmp_path / "store", shard_entries=1 << 20)
    reader = LogitReader(folder)
    before = reader["a"].log_probs
    write(folder, epsilon=0.3)
    assert torch.equal(reader["a"].log_probs, before)
    assert len(LogitReader(folder)["a"].log_probs) < len(before)
    assert reader["a"].vocabulary == VOCABULARY
