"""Rows from files in the hub's own formats, and refusals that name the row."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from kd.data.rows import read_rows
from kd.data.sources import build_dataset
from kd.errors import DataError
from kd.experiment.stages import DataSpec
from kd.provenance.manifest import read_manifest

FIELDS = {"id": "key", "context": "text", "question": "query", "answers": "answers.text"}


def record(number, split="train", **change):
    return {
        "key": f"{split}-{number}",
        "text": f"context {number}",
        "query": "why",
        "answers": {"text": [f"a{number}", "b"], "answer_start": [0, 1]},
    } | change


def spec(suffix, fields=FIELDS, **splits):
    dataset = {
        "source": "files",
        "task": "qa",
        "metric": "f1",
        "paths": {name: f"{name}.{suffix}" for name in ("train", "validation", "test")},
        "fields": fields,
    }
    if splits:
        dataset["splits"] = splits
    return DataSpec.model_validate({"name": "mine", "dataset": dataset, "seed": 0})


def write_jsonl(folder, **spoiled):
    for split in ("train", "validation", "test"):
        records = spoiled.get(split, [record(number, split) for number in range(4)])
        lines = [line if isinstance(line, str) else json.dumps(line) for line in records]
        (folder / f"{split}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")


def test_jsonl_and_parquet_give_the_same_rows(tmp_path):
    write_jsonl(tmp_path)
    for split in ("train", "validation", "test"):
        table = pa.Table.from_pylist([record(number, split) for number in range(4)])
        pq.write_table(table, tmp_path / f"{split}.parquet")
    build_dataset(spec("jsonl"), tmp_path, tmp_path / "a")
    build_dataset(spec("parquet"), tmp_path, tmp_path / "b")
    rows = read_rows(tmp_path / "a" / "test.parquet")
    assert rows == read_rows(tmp_path / "b" / "test.parquet")
    assert rows[1].answers == ["a1", "b"] and rows[1].context == "context 1"


def test_splits_keep_the_first_rows_and_are_counted(tmp_path):
    write_jsonl(tmp_path)
    build_dataset(spec("jsonl", train=3, validation=1, test=2), tmp_path, tmp_path / "out")
    manifest = read_manifest(tmp_path / "out" / "data.manifest.json")
    assert manifest["notes"]["rows"] == {"train": 3, "validation": 1, "test": 2}
    assert read_rows(tmp_path / "out/train.parquet")[-1].id == "train-2"


def test_identity_follows_the_files_content_not_their_place(tmp_path):
    identities = []
    for name in ("here", "there"):
        (tmp_path / name).mkdir()
        write_jsonl(tmp_path / name)
        build_dataset(spec("jsonl"), tmp_path / name, tmp_path / name / "out")
        manifest = read_manifest(tmp_path / name / "out" / "data.manifest.json")
        identities.append(manifest["identity"])
    assert identities[0] == identities[1]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([record(0), "{broken"], r"train\.jsonl, row 2: not valid JSON"),
        ([record(0), record(0)], r"row 2: id 'train-0' already stands in row 1"),
        ([record(0), record(1, text=" ")], r"row 2: 'context' must not be empty"),
        ([record(0), record(1, answers={"text": []})], r"row 2: 'answers' must hold at least one"),
        ([record(0), record(1, answers=None)], r"row 2: '.*' and '.*' must not be null|row 2"),
        ([record(0), record(1, key=None)], r"row 2: 'key' and 'answers\.text' must not be null"),
        ([record(0), record(1, text=7)], r"row 2: 'text' is of type int, in earlier rows str"),
        ([{"key": "x"}], r"row 1: has the fields key, but .*Map them with 'fields'"),
        (["[1]"], r"holds one JSON list"),
        ([record(0, "test")], r"id 'test-0' stands in both train and test"),
    ],
)
def test_bad_rows_are_named(tmp_path, rows, message):
    write_jsonl(tmp_path, train=rows)
    with pytest.raises(DataError, match=message):
        build_dataset(spec("jsonl"), tmp_path, tmp_path / "out")
    assert not (tmp_path / "out" / "data.manifest.json").exists()


def test_nested_answers_must_be_mapped_to_their_texts(tmp_path):
    write_jsonl(tmp_path)
    with pytest.raises(DataError, match=r"'answers' holds the fields answer_start, text\. Map one"):
        build_dataset(spec("jsonl", FIELDS | {"answers": "answers"}), tmp_path, tmp_path / "out")


def test_unusual_line_separators_belong_to_the_text(tmp_path):
    odd = "one\u2028two\x85three"
    line = json.dumps(record(0, text=odd), ensure_ascii=False)
    write_jsonl(tmp_path, train=[line])
    build_dataset(spec("jsonl"), tmp_path, tmp_path / "out")
    assert read_rows(tmp_path / "out/train.parquet")[0].context == odd


def test_a_removed_split_does_not_linger(tmp_path):
    write_jsonl(tmp_path)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "pretraining.parquet").write_bytes(b"stale")
    build_dataset(spec("jsonl"), tmp_path, tmp_path / "out")
    assert not (tmp_path / "out" / "pretraining.parquet").exists()


def test_a_missing_file_says_how_to_give_the_folder(tmp_path):
    with pytest.raises(DataError, match=r"train\.jsonl: no such file .* data_root=FOLDER"):
        build_dataset(spec("jsonl"), tmp_path, tmp_path / "out")


def test_an_empty_file_is_refused(tmp_path):
    write_jsonl(tmp_path, train=[])
    with pytest.raises(DataError, match=r"train\.jsonl"):
        build_dataset(spec("jsonl"), tmp_path, tmp_path / "out")
