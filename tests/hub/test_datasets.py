"""The five datasets as the hub has them, read by the declarations of experiments/paper.yaml."""

import json
from pathlib import Path

import pytest

from kd.data.rows import read_rows
from kd.data.sources import build_dataset
from kd.errors import DataError, ExperimentError
from kd.experiment.loading import find_experiment, load_experiment
from kd.experiment.stages import DataSpec, data_spec
from kd.hub.access import HubError
from kd.provenance.manifest import read_manifest

SQUAD_CARD = """---
license: cc-by-sa-4.0
configs:
- config_name: plain_text
  default: true
  data_files:
  - split: train
    path: plain_text/train-*
  - split: validation
    path: plain_text/validation-*
---
"""


def squad(number, answers=1):
    texts = [f"a{number}{end}" for end in "xyz"[:answers]]
    return {
        "id": f"5733{number:04}",
        "title": "Super_Bowl_50",
        "context": f"context {number}",
        "question": f"who {number}?",
        "answers": {"text": texts, "answer_start": [0] * answers},
    }


def qed(number):
    spans = [{"start": 0, "end": 1, "string": f"span {number}"}]
    spans += [{"start": 2, "end": 3, "string": "another"}] * (number % 2)
    return {
        "example_id": -3290814144789249484 + number,
        "title_text": "List of things",
        "url": "https://en.wikipedia.org",
        "question": f"who is {number}",
        "paragraph_text": f"paragraph {number}",
        "sentence_starts": [0, 4],
        "original_nq_answers": spans,
        "annotation": {"explanation_type": "single_sentence", "answer": [{"x": 1}]},
    }


def fairytale(number, split):
    return {
        "story_name": "the-dead-moon",
        "content": f"once {number} .",
        "answer": f"the moon {number}",
        "question": f"what {number} ?",
        "gem_id": f"GEM-FairytaleQA-{split}-{number}",
        "target": f"what {number} ?",
        "references": [f"what {number} ?"],
        "local_or_sum": "local",
        "attribute": "action",
        "ex_or_im": "explicit",
        "ex_or_im2": "",
    }


def pubmed(number):
    return {
        "pubid": 25429730 + number,
        "question": f"Does {number} help?",
        "context": {
            "contexts": [f"Aim {number}.", "Methods."],
            "labels": ["BACKGROUND", "METHODS"],
            "meshes": ["Adult"],
        },
        "long_answer": f"It helps {number}.",
        "final_decision": "yes",
    }


def dialogue(name, number, summary="They talk"):
    text = f"#Person1#: Hi, {number}.\n#Person2#: Hello."
    return {"id": name, "dialogue": text, "summary": f"{summary} {name}.", "topic": "talk"}


FILES = {
    "squad": {
        "plain_text/train-00000-of-00001.parquet": [squad(n) for n in range(100)],
        "plain_text/validation-00000-of-00001.parquet": [squad(n, 3) for n in range(200, 203)],
    },
    "qed": {
        "default/train/0000.parquet": [qed(n) for n in range(50)],
        "default/validation/0000.parquet": [qed(n) for n in range(60, 64)],
    },
    "fairytaleqa": {
        f"default/{split}/0000.parquet": [fairytale(n, split) for n in range(4)]
        for split in ("train", "validation", "test")
    },
    "pubmedqa": {
        "pqa_artificial/train-00000-of-00001.parquet": [pubmed(n) for n in range(100, 120)],
        "pqa_labeled/train-00000-of-00001.parquet": [pubmed(n) for n in range(10)],
    },
    "dialogsum": {
        "train.csv": [dialogue(f"train_{n}", n) for n in range(5)],
        "validation.csv": [dialogue(f"dev_{n}", n) for n in range(2)],
        "test.csv": [dialogue(f"test_{n}_{k}", n) for n in range(3) for k in (1, 2, 3)],
    },
}
CARDS = {"squad": SQUAD_CARD}


def paper(name) -> DataSpec:
    return data_spec(load_experiment(find_experiment("paper")), name)


@pytest.fixture
def built(cache, tmp_path):
    """Builds one of the paper's datasets from a repository of its format."""

    def build(name, spec=None):
        spec = spec or paper(name)
        declared = spec.dataset
        cache.dataset(declared.repo, FILES[name], declared.revision, CARDS.get(name, ""))
        build_dataset(spec, Path(), tmp_path / "out")
        splits = ("train", "validation", "test")
        return {split: read_rows(tmp_path / "out" / f"{split}.parquet") for split in splits}

    return build


def test_squad_holds_out_a_twentieth_and_keeps_all_references(built, tmp_path):
    rows = built("squad")
    assert {split: len(found) for split, found in rows.items()} == {
        "train": 95,
        "validation": 5,
        "test": 3,
    }
    first = rows["test"][0]
    assert first.answers == ["a200x", "a200y", "a200z"]
    assert (first.id, first.title, first.question) == ("57330200", "Super_Bowl_50", "who 200?")
    notes = read_manifest(tmp_path / "out" / "data.manifest.json")["notes"]
    assert notes["commit"] == paper("squad").dataset.revision
    assert notes["licence"] == "cc-by-sa-4.0"


def test_what_is_held_out_is_what_the_authors_function_holds_out(built):
    """Their code: `train_test_split(test_size=…, seed=42)` of the same library."""
    from datasets import Dataset

    rows = built("squad")
    ids = Dataset.from_dict({"id": [squad(n)["id"] for n in range(100)]})
    parts = ids.train_test_split(test_size=0.05, seed=42)
    assert [row.id for row in rows["validation"]] == parts["test"]["id"]
    assert [row.id for row in rows["train"]] == parts["train"]["id"]


def test_qed_takes_the_first_span(built):
    rows = built("qed")
    assert (len(rows["train"]), len(rows["validation"])) == (46, 4)
    second = rows["test"][1]
    assert second.answers == ["span 61"] and second.title == "List of things"
    assert second.context == "paragraph 61" and second.id == "-3290814144789249423"


def test_fairytaleqa_answers_and_does_not_ask(built):
    rows = built("fairytaleqa")
    assert rows["train"][1].answers == ["the moon 1"] and rows["train"][1].question == "what 1 ?"
    assert rows["train"][1].context == "once 1 ." and rows["train"][1].task == "qa_generative"


def test_pubmedqa_trains_on_artificial_rows_and_halves_the_labelled(built):
    rows = built("pubmedqa")
    assert (len(rows["train"]), len(rows["validation"]), len(rows["test"])) == (20, 5, 5)
    halves = {row.id for split in ("validation", "test") for row in rows[split]}
    assert halves == {str(25429730 + n) for n in range(10)}
    assert rows["train"][0].context == "Aim 100. Methods."
    assert rows["train"][0].answers == ["It helps 100."]


def test_dialogsum_has_three_references_a_dialogue(built):
    rows = built("dialogsum")
    assert [row.id for row in rows["test"]] == ["test_0", "test_1", "test_2"]
    summaries = [f"They talk test_1_{k}." for k in (1, 2, 3)]
    assert rows["test"][1].answers == summaries and rows["test"][1].context.startswith("#Person1#")
    assert [row.id for row in rows["train"]] == [f"train_{n}" for n in range(5)]


def changed(name, **keys) -> DataSpec:
    spec = paper(name).model_dump()
    spec["dataset"] |= keys
    return DataSpec.model_validate(spec)


def test_all_spans_where_they_are_wanted(built):
    fields = paper("qed").dataset.fields.model_dump() | {"answers": "original_nq_answers.string"}
    rows = built("qed", changed("qed", fields=fields))
    assert rows["test"][1].answers == ["span 61", "another"]


def test_rows_that_ask_differently_are_not_one_row(built):
    pattern = "(test)_[0-9]+_[0-9]+"
    with pytest.raises(DataError, match="asks something else than others of 'test'"):
        built("dialogsum", changed("dialogsum", group_ids=pattern))


def test_a_second_row_of_an_id_is_a_duplicate_unless_it_is_grouped(built, monkeypatch):
    files = {"train.csv": [dialogue("a", 1), dialogue("a", 1)]}
    files |= {"validation.csv": [dialogue("b", 1)], "test.csv": [dialogue("c", 1)]}
    monkeypatch.setitem(FILES, "twice", files)
    with pytest.raises(DataError, match="id 'a' already stands in row 1"):
        built("twice", paper("dialogsum"))


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"config": "other"}, r"'train' of other cannot be read"),
        (
            {"hub_splits": {"train": "nope", "validation": "train", "test": "train"}},
            r"'nope' of .* cannot be read .*Unknown split.*nope",
        ),
        ({"fields": {"answers": "answers"}}, r"holds the fields answer_start, text\. Map one"),
        ({"fields": {"answers": "texts"}}, r"has the fields answers, context.*Map them"),
    ],
)
def test_what_is_not_there_is_named(built, keys, message):
    with pytest.raises(DataError, match=message):
        built("squad", changed("squad", **keys))


def test_a_repository_with_a_script_alone_is_not_run(cache, tmp_path):
    folder = cache.snapshot("org/scripted", "main", kind="dataset")
    (folder / "scripted.py").write_text("raise SystemExit('ran')")
    spec = changed("squad", repo="org/scripted", revision="main")
    with pytest.raises(DataError, match="refs/convert/parquet"):
        build_dataset(spec, Path(), tmp_path / "out")


def test_a_dataset_that_is_not_in_the_cache(cache, tmp_path):
    with pytest.raises(HubError, match=r"dataset 'rajpurkar/squad'.*is not in the cache.*sources"):
        build_dataset(paper("squad"), Path(), tmp_path / "out")


def test_published_sizes_and_metrics_do_not_remake_rows():
    assert data_spec(load_experiment(find_experiment("paper")), "squad") == data_spec(
        load_experiment(find_experiment("paper"), {"datasets": {"squad": {"rows": None}}}), "squad"
    )


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"group_ids": "test_[0-9]+"}, "must hold one group"),
        ({"group_ids": "("}, "is no regular expression"),
        ({"hub_splits": {"validation": None}}, "misses the split"),
        (
            {"hub_splits": {"test": {"split": "test", "part": "held_out"}}},
            "'part: held_out' needs 'hold_out'",
        ),
    ],
)
def test_declarations_that_mean_nothing_are_refused(keys, message):
    with pytest.raises(ExperimentError, match=message):
        load_experiment(find_experiment("paper"), {"datasets": {"dialogsum": keys}})


# --- files as their authors publish them ------------------------------------------------------


def files_spec(layout, paths, fields, task="qa") -> DataSpec:
    dataset = {"source": "files", "task": task, "metric": "f1", "layout": layout}
    dataset |= {"paths": paths, "fields": fields}
    return DataSpec.model_validate({"name": "d", "dataset": dataset, "seed": 0})


def three(name):
    return dict.fromkeys(("train", "validation", "test"), name)


def per_split(end):
    return {split: f"{split}{end}" for split in ("train", "validation", "test")}


def test_squads_own_json(tmp_path):
    for number, split in enumerate(("train", "validation", "test")):
        record = squad(number, 2)
        question = {"id": record["id"], "question": record["question"]}
        question["answers"] = [
            {"text": text, "answer_start": 0} for text in record["answers"]["text"]
        ]
        paragraph = {"context": record["context"], "qas": [question]}
        article = {"title": record["title"], "paragraphs": [paragraph]}
        content = {"version": "1.1", "data": [article]}
        (tmp_path / f"{split}.json").write_text(json.dumps(content))
    spec = files_spec("squad", per_split(".json"), {"title": "title"})
    build_dataset(spec, tmp_path, tmp_path / "out")
    (row,) = read_rows(tmp_path / "out" / "test.parquet")
    assert row.answers == ["a2x", "a2y"] and row.title == "Super Bowl 50"


def test_pubmedqas_own_json(tmp_path):
    for number, split in enumerate(("train", "validation", "test")):
        entry = {"QUESTION": "why", "CONTEXTS": ["A.", "B."], "LONG_ANSWER": "So."}
        (tmp_path / f"{split}.json").write_text(json.dumps({f"{number}": entry}))
    fields = {"context": "CONTEXTS", "question": "QUESTION", "answers": "LONG_ANSWER"}
    spec = files_spec("pubmedqa", per_split(".json"), fields)
    build_dataset(spec, tmp_path, tmp_path / "out")
    (row,) = read_rows(tmp_path / "out" / "test.parquet")
    assert (row.id, row.context, row.answers) == ("2", "A. B.", ["So."])


def write_fairytale(root, split, story):
    questions, stories = root / "questions" / split, root / "section-stories" / split
    for folder in (questions, stories):
        folder.mkdir(parents=True, exist_ok=True)
    head = "question_id,cor_section,question,answer1,answer2,answer4"
    lines = [head, '1,"1,2",who went,a boy,,the boy', "2,2,why,hunger,,"]
    (questions / f"{story}-questions.csv").write_text("\n".join(lines) + "\n")
    text = 'section,text\n1,"A boy\nwent."\n2,He was hungry.\n'
    (stories / f"{story}-story.csv").write_text(text)


def test_fairytaleqas_own_tables(tmp_path):
    for split in ("train", "val", "test"):
        write_fairytale(tmp_path / "all", split, f"tale-{split}")
    spec = files_spec("fairytaleqa", three("all"), {"title": "title"}, "qa_generative")
    build_dataset(spec, tmp_path, tmp_path / "out")
    first, second = read_rows(tmp_path / "out" / "validation.parquet")
    assert first.id == "tale-val-1" and first.context == "A boy went. He was hungry."
    assert first.answers == ["a boy", "the boy"] and second.context == "He was hungry."
    manifest = read_manifest(tmp_path / "out" / "data.manifest.json")
    stories = tmp_path / "all/section-stories/test/tale-test-story.csv"
    stories.write_text("section,text\n1,Other.\n2,He was hungry.\n")
    build_dataset(spec, tmp_path, tmp_path / "out")
    assert (
        read_manifest(tmp_path / "out" / "data.manifest.json")["identity"] != manifest["identity"]
    )


def test_qeds_own_lines_and_dialogsums(tmp_path):
    for number, split in enumerate(("train", "validation", "test")):
        record = qed(number) | {"original_nq_answers": [qed(number)["original_nq_answers"]]}
        record["question_text"] = record.pop("question")
        (tmp_path / f"{split}.jsonlines").write_text(json.dumps(record) + "\n")
    fields = {"id": "example_id", "context": "paragraph_text", "question": "question_text"}
    fields |= {"answers": "original_nq_answers.0.0.string", "title": "title_text"}
    build_dataset(files_spec("rows", per_split(".jsonlines"), fields), tmp_path, tmp_path / "out")
    assert read_rows(tmp_path / "out" / "test.parquet")[0].answers == ["span 2"]

    for number, split in enumerate(("train", "validation", "test")):
        record = {"fname": f"{split}_{number}", "dialogue": "#Person1#: Hi."}
        record |= {f"summary{k}": f"s{k}" for k in (1, 2, 3)}
        (tmp_path / f"{split}.jsonl").write_text(json.dumps(record) + "\n")
    fields = {"id": "fname", "context": "dialogue", "question": None}
    fields["answers"] = ["summary1", "summary2", "summary3"]
    spec = files_spec("rows", per_split(".jsonl"), fields, "summary_dialogue")
    build_dataset(spec, tmp_path, tmp_path / "three")
    assert read_rows(tmp_path / "three" / "test.parquet")[0].answers == ["s1", "s2", "s3"]


def test_a_file_of_another_kind_is_named(tmp_path):
    for split in ("train", "validation", "test"):
        (tmp_path / f"{split}.json").write_text("{}")
    for layout, message in (("squad", "not a file of SQuAD"), ("pubmedqa", "no rows")):
        with pytest.raises(DataError, match=message):
            build_dataset(files_spec(layout, per_split(".json"), {}), tmp_path, tmp_path / "out")
