"""Real rows of the five datasets, put into the hub's formats and read back.

KD_DATA_DIR names a folder with <dataset>/{train,validation,test}.jsonl, one row a line, with the
fields id, title, context, question and answers. Without it these tests are skipped.
"""

import json
import os
from pathlib import Path

import pytest

from kd.data.prompts import build_prompt, choose_shots
from kd.data.rows import read_rows
from kd.data.sources import build_dataset
from kd.experiment.loading import find_experiment, load_experiment
from kd.experiment.stages import data_spec

DATA = os.environ.get("KD_DATA_DIR", "")
pytestmark = pytest.mark.skipif(not DATA, reason="KD_DATA_DIR names no folder of real rows")


def as_squad(row):
    answers = {"text": row["answers"], "answer_start": [0] * len(row["answers"])}
    return [
        {key: row[key] for key in ("id", "title", "context", "question")} | {"answers": answers}
    ]


def as_qed(row):
    spans = [{"start": 0, "end": 1, "string": answer} for answer in row["answers"]]
    return [
        {"example_id": int(row["id"]), "title_text": row["title"], "question": row["question"]}
        | {"paragraph_text": row["context"], "original_nq_answers": spans}
    ]


def as_fairytaleqa(row):
    return [
        {"gem_id": row["id"], "story_name": row["title"], "content": row["context"]}
        | {"question": row["question"], "answer": row["answers"][0]}
    ]


def as_pubmedqa(row):
    contexts = {"contexts": row["context"].split(" ", 1), "labels": ["A", "B"]}
    return [
        {"pubid": int(row["id"]), "question": row["question"], "context": contexts}
        | {"long_answer": row["answers"][0]}
    ]


def as_dialogsum(row):
    many = len(row["answers"]) > 1
    return [
        {"id": f"{row['id']}_{number}" if many else row["id"]}
        | {"dialogue": row["context"], "summary": answer, "topic": ""}
        for number, answer in enumerate(row["answers"], start=1)
    ]


# How rows look on the hub, the repository's files, and the split that is read as it is.
FORMATS = {
    "squad": (as_squad, "plain_text/{split}-0.parquet", ("train", "validation")),
    "qed": (as_qed, "default/{split}/0000.parquet", ("train", "validation")),
    "fairytaleqa": (
        as_fairytaleqa,
        "default/{split}/0000.parquet",
        ("train", "validation", "test"),
    ),
    "pubmedqa": (as_pubmedqa, None, ()),
    "dialogsum": (as_dialogsum, "{split}.csv", ("train", "validation", "test")),
}


def real(name, split):
    lines = (Path(DATA) / name / f"{split}.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def repository(name):
    """The repository's files. What the hub calls validation holds our test rows in two cases."""
    make, place, splits = FORMATS[name]
    if place is None:
        return {
            f"{config}/train-0.parquet": [
                record for row in real(name, split) for record in make(row)
            ]
            for config, split in (("pqa_artificial", "train"), ("pqa_labeled", "test"))
        }
    source = {"validation": "validation" if "test" in splits else "test"}
    return {
        place.format(split=split): [
            record for row in real(name, source.get(split, split)) for record in make(row)
        ]
        for split in splits
    }


@pytest.mark.parametrize("name", sorted(FORMATS))
def test_rows_come_back_from_the_hubs_format(cache, tmp_path, name):
    spec = data_spec(load_experiment(find_experiment("paper")), name)
    cache.dataset(spec.dataset.repo, repository(name), spec.dataset.revision)
    build_dataset(spec, Path(), tmp_path)
    read = {row.id: row for row in read_rows(tmp_path / "test.parquet")}
    expected = {str(row["id"]): row for row in real(name, "test")}
    if name == "pubmedqa":  # half of them; the others are for validation
        read |= {row.id: row for row in read_rows(tmp_path / "validation.parquet")}
    assert read.keys() == expected.keys()
    for key, row in expected.items():
        assert read[key].context == row["context"] and read[key].question == row["question"]
        assert read[key].answers == row["answers"]
    train = read_rows(tmp_path / "train.parquet")
    shots = choose_shots(train, 3, seed=42)
    assert [shot.id for shot in shots] == [
        shot.id for shot in choose_shots(train[::-1], 3, seed=42)
    ]
    prompt = build_prompt(next(iter(read.values())), shots)
    assert all(shot.context in prompt for shot in shots)
