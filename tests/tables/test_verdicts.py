"""`kd claims`: verdicts from finished tables, exit codes, and what is not made yet."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from kd.cli import app
from kd.errors import ArtifactError, ExperimentError
from kd.experiment.loading import load_experiment
from kd.experiment.stages import table_spec
from kd.provenance.manifest import StageRecord

MODEL = {
    "source": "micro",
    "architecture": "llama",
    "size": "tiny",
    "tokenizer": {"algorithm": "byte_bpe", "vocabulary": 400},
    "pretraining": {"steps": 10, "rows": 20},
}
CLAIM = {"text": "ULD is better.", "left": {"method": "uld"}, "right": {"method": "teacher_text"}}
EXPERIMENT = {
    "name": "tiny",
    "datasets": {
        "squad": {
            "source": "micro",
            "task": "qa",
            "metric": "f1",
            "splits": {"train": 8, "validation": 4, "test": 4},
        }
    },
    "teachers": {"llama": MODEL},
    "students": {"opt": MODEL},
    "methods": {"teacher_text": {"loss": "none"}, "uld": {"loss": "uld"}},
    "training": {"learning_rate": 0.001},
    "tables": {"first": {}, "second": {}, "third": {}},
    "claims": {
        "a": CLAIM | {"table": "first"},
        "b": CLAIM | {"table": "first", "text": "ULD is much better.", "margin": 5.0},
        "c": CLAIM | {"table": "second"},
    },
}


def judged(name, outcome, text=None, value=1.0, **changed):
    """A claim as its table's json holds it."""
    stated = EXPERIMENT["claims"][name]
    return {
        "name": name,
        "text": text or stated["text"],
        "outcome": outcome,
        "value": value,
        "sentence": f"Says {outcome}.",
        "definition": {key: stated[key] for key in stated if key != "text"} | changed,
    }


def write_table(results, table, *claims, schema=2):
    content = {"schema_version": schema, "experiment": "tiny", "table": table, "claims": claims}
    path = results / "tables" / f"{table}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
    declared = load_experiment(Path("tiny.yaml"))
    record = StageRecord("table", table_spec(declared, table), {}, ("kd.tables.cells",), name=table)
    record.write(path)
    return path


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(EXPERIMENT))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def results(checkout):
    return checkout / "results" / "tiny"


def run(*arguments):
    return CliRunner().invoke(app, ["claims", *map(str, arguments)])


def finish(results, first, second, third="holds"):
    write_table(results, "first", judged("a", first), judged("b", second))
    write_table(results, "second", judged("c", third))


@pytest.mark.parametrize(
    ("outcomes", "code"),
    [
        (("holds", "holds"), 0),
        (("holds", "undecided"), 0),
        (("holds", "does not hold"), 1),
    ],
)
def test_strict_fails_where_a_claim_does_not_hold(results, outcomes, code):
    finish(results, *outcomes)
    assert run("tiny.yaml", "--strict").exit_code == code
    done = run("tiny.yaml")
    assert done.exit_code == 0
    for shown in ("first", "second", "ULD is better.", *outcomes, f"Says {outcomes[1]}."):
        assert shown in done.output


def test_a_claim_without_scores_is_not_put_to_the_test(results):
    write_table(results, "first", judged("a", "holds"), judged("b", "undecided", value=None))
    write_table(results, "second", judged("c", "holds"))
    assert run("tiny.yaml", "--strict").exit_code == 2
    assert run("tiny.yaml").exit_code == 0


def test_tables_that_are_not_made_are_named_with_the_command(results):
    write_table(results, "first", judged("a", "holds"), judged("b", "holds"))
    done = run("tiny.yaml")
    assert done.exit_code == 0
    assert "second: not made yet. Make it with `snakemake results/tiny/tables/second.csv`" in (
        done.output
    )
    assert "third" not in done.output  # it has no claims
    assert run("tiny.yaml", "--strict").exit_code == 2


@pytest.mark.parametrize("edited", [{"text": "Another text."}, {"margin": 1.0}])
def test_claims_that_were_edited_after_the_table_are_not_taken_as_judged(results, edited):
    finish(results, "holds", "holds")
    write_table(results, "first", judged("a", "holds"), judged("b", "holds", **edited))
    done = run("tiny.yaml", "--json")
    assert json.loads(done.output)["not_judged"] == ["first: b"]
    assert run("tiny.yaml", "--strict").exit_code == 2
    assert "first: b: written or edited after its table was made" in run("tiny.yaml").output


def test_json_lists_everything(results):
    finish(results, "holds", "does not hold", "undecided")
    done = run("tiny.yaml", "--json", "--strict")
    assert done.exit_code == 1
    content = json.loads(done.output)
    assert [(c["table"], c["name"], c["outcome"]) for c in content["claims"]] == [
        ("first", "a", "holds"),
        ("first", "b", "does not hold"),
        ("second", "c", "undecided"),
    ]
    assert content["not_made"] == [] and content["experiment"] == "tiny"


@pytest.mark.parametrize("end", ["csv", "long.csv", "md", "json", "tex"])
def test_any_file_of_a_table_names_it(results, end):
    path = write_table(results, "first", judged("a", "does not hold"))
    assert run(path.with_name(f"first.{end}"), "--strict").exit_code == 1


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda path: path.write_text("{"), "not a table's json"),
        (lambda path: path.write_text("[]"), "not a table's json"),
        (lambda path: path.unlink(), "no such table"),
        (lambda path: write_table(path.parents[1], "first", schema=1), "schema 1, expected 2"),
        (lambda path: write_table(path.parents[1], "first", judged("a", "maybe")), "no verdict"),
        (lambda path: write_table(path.parents[1], "first", {"name": "a"}), "cannot be read"),
    ],
)
def test_a_table_that_cannot_be_read_is_refused(results, spoil, message):
    path = write_table(results, "first", judged("a", "holds"))
    spoil(path)
    done = run(path)
    assert isinstance(done.exception, ArtifactError)
    assert message in str(done.exception)


def test_an_unknown_experiment_is_refused(checkout):
    assert isinstance(run("micrx").exception, ExperimentError)


def test_bad_input_is_one_sentence_and_exit_status_2(checkout):
    command = [sys.executable, "-m", "kd.cli", "claims", "results/none.csv"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("kd: error: results/none.json: no such table.")
    assert len(done.stderr.splitlines()) == 1


def alter(path):
    path.write_text(path.read_text().replace("does not hold", "holds"))


def test_a_table_that_was_altered_after_it_was_made_is_refused(results):
    path = write_table(results, "first", judged("a", "does not hold"))
    alter(path)
    for target in (path, "tiny.yaml"):
        error = run(target, "--strict").exception
        assert isinstance(error, ArtifactError)
        assert "first.json: changed since stage 'table' wrote it. Delete it and run" in str(error)


def test_a_table_without_its_manifest_is_refused(results):
    path = write_table(results, "first", judged("a", "holds"))
    path.with_name("first.manifest.json").unlink()
    error = run(path).exception
    assert isinstance(error, ArtifactError) and "no manifest beside it" in str(error)


def test_a_copy_of_a_table_must_equal_it(results):
    path = write_table(results, "first", judged("a", "does not hold"))
    copy = results.parent / "first.json"
    copy.write_bytes(path.read_bytes())
    assert json.loads(run(copy, "--json").output)["claims"][0]["outcome"] == "does not hold"
    alter(copy)
    assert "differs from" in str(run(copy).exception)


def test_a_table_by_its_file_is_compared_with_the_experiment_of_its_name(results, monkeypatch):
    monkeypatch.setattr("kd.experiment.loading.EXPERIMENTS", Path())
    path = write_table(results, "first", judged("a", "holds"), judged("b", "holds", margin=1.0))
    done = run(path, "--strict")
    assert done.exit_code == 2 and "first: b: written or edited after" in done.output
    write_table(results, "first", judged("a", "holds"), judged("b", "holds"))
    assert run(path, "--strict").exit_code == 0


def test_an_experiment_that_cannot_be_found_is_said_not_to_be_compared(results):
    path = write_table(results, "first", judged("a", "holds"), judged("b", "holds"))
    done = run(path, "--strict")
    assert done.exit_code == 2 and "no experiment 'tiny' to compare with" in done.output


def test_a_claim_that_was_withdrawn_is_named(results):
    extra = judged("a", "holds") | {"name": "old"}
    write_table(results, "first", judged("a", "holds"), judged("b", "holds"), extra)
    write_table(results, "second", judged("c", "holds"))
    done = run("tiny.yaml", "--strict")
    assert done.exit_code == 2 and "first: old: no longer in the experiment file" in done.output


def test_an_experiment_edited_since_the_table_is_named(results, checkout):
    finish(results, "holds", "holds")
    assert run("tiny.yaml", "--strict").exit_code == 0
    edited = EXPERIMENT | {
        "datasets": {"squad": EXPERIMENT["datasets"]["squad"] | {"metric": "rougeL"}}
    }
    (checkout / "tiny.yaml").write_text(yaml.safe_dump(edited))
    done = run("tiny.yaml", "--strict")
    assert done.exit_code == 2
    assert "first: stage 'table' (metrics.squad; first tables/first)" in done.output
    (checkout / "tiny.yaml").write_text(yaml.safe_dump(EXPERIMENT | {"seeds": 2}))
    assert run("tiny.yaml", "--strict").exit_code == 0


@pytest.mark.parametrize("content", [b"\xb0\xff", b'a,b\n"\x00'])
def test_garbage_is_no_table_to_show(tmp_path, content):
    file = tmp_path / "t.csv"
    file.write_bytes(content)
    error = CliRunner().invoke(app, ["show", str(file)]).exception
    assert error is None or isinstance(error, ArtifactError)


def test_a_page_is_no_table_to_show(tmp_path):
    page = tmp_path / "README.md"
    page.write_text("# a, b\n", encoding="utf-8")
    error = CliRunner().invoke(app, ["show", str(page)]).exception
    assert isinstance(error, ArtifactError)
    assert "no table's csv" in str(error)


@pytest.mark.parametrize("content", [b"\xb0\xff", b"\x00", b"[" * 100_000])
def test_garbage_is_no_table_to_judge(tmp_path, content):
    file = tmp_path / "t.json"
    file.write_bytes(content)
    error = run(file).exception
    assert isinstance(error, ArtifactError) and "not a table's json" in str(error)


def test_a_specification_that_is_no_text_is_refused(tmp_path):
    file = tmp_path / "spec.json"
    file.write_bytes(b"\xb0\xff")
    arguments = ["report", "--spec", str(file), "--results", str(tmp_path), "--out", "x.html"]
    error = CliRunner().invoke(app, arguments).exception
    assert isinstance(error, ExperimentError) and "no file of text" in str(error)
    arguments[2] = '{"experiment": "x", "description": "", "tables": [], "deviations": []}'
    error = CliRunner().invoke(app, arguments).exception
    assert isinstance(error, ExperimentError) and "'tables'" in str(error)
