"""The commands themselves: what they take for a path, their exit status, their files."""

import json

import pytest
from typer.testing import CliRunner

from kd.cli import app
from kd.errors import KdError
from tests.audit.mutations import audit
from tests.audit.tampering import edit_context, flip, replace_text

TABLE = "results/tiny/tables/table2.csv"


@pytest.fixture
def kd(spoilt, monkeypatch):
    """Run `kd …` in the spoilt checkout, with its own experiment file."""
    monkeypatch.chdir(spoilt.root)

    def run(*words, experiment=True):
        named = ["--experiment", "experiments/tiny.yaml"] if experiment else []
        return CliRunner().invoke(app, [*words, *named])

    return run


@pytest.mark.parametrize(
    "words",
    [
        ["table", "results/table2.csv"],
        ["table", TABLE],
        ["results/table2.csv"],
        ["--all", "results/table2.csv"],
        ["run", "results/tiny/runs/squad/llama/opt/uld/f100/s0"],
        ["results/tiny/runs/squad/llama/opt/uld/f100/s0"],
        ["experiment", "tiny"],
        ["experiment", "experiments/tiny.yaml"],
        ["results/tiny"],
    ],
)
def test_a_clean_target_exits_with_0(kd, words):
    done = kd("audit", *words)
    assert done.exit_code == 0, done.output
    assert "fail" not in done.output.splitlines()[0]


def test_a_failure_exits_with_1_and_a_warning_only_if_strict(kd, spoilt):
    edit_context("tables/table2", dirty=True)(spoilt)
    assert kd("audit", TABLE).exit_code == 0
    assert kd("audit", TABLE, "--strict").exit_code == 1
    flip("models/opt/model/model.safetensors")(spoilt)
    done = kd("audit", TABLE)
    assert done.exit_code == 1
    assert "Next: snakemake --force results/tiny/models/opt/model" in done.output


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["table", "results/table9.csv"], "no table9.json beside it"),
        (["table", "results/tiny/tables/tabel2.csv"], "Did you mean 'table2'?"),
        (["table", "results/table2.txt"], "Give its csv"),
        (["run", "results/tiny/runs/nowhere"], "no such folder"),
        (["experiment", "tyny"], "Did you mean 'tiny'?"),
        (["table", TABLE, "--cell", "dataset=squid"], "no cell is dataset=squid"),
        (["table", TABLE, "--cell", "datset=squad"], "Did you mean 'dataset'?"),
        (["experiment", "tiny", "--cell", "dataset=squad"], "give the table's csv"),
        (["results/tiny/models/opt", "--cell", "dataset=squad"], "give the table's csv"),
        (["table", TABLE, "--repeat", "1", "--from", "answer"], "Did you mean 'answers'?"),
        (["table", TABLE, "--pick", "cheap"], "Did you mean 'cheapest'?"),
        (["table", TABLE, "--config", "seeds"], "no KEY=VALUE"),
        (["table", TABLE, "--config", "seeds=[0,2"], "close its brackets"),
        (["table", TABLE, "--config", "seedz=3"], "'seedz' is not a known key"),
    ],
)
def test_a_mistake_is_refused_in_one_sentence(kd, words, sentence):
    done = kd("audit", *words)
    assert isinstance(done.exception, KdError)
    assert sentence in str(done.exception)


def test_an_unknown_experiment_leaves_what_needs_none(kd):
    done = kd("audit", TABLE, "--all", experiment=False)
    assert done.exit_code == 0, done.output
    assert "the experiment as it is now is not known" in done.output


def test_json_alone_on_standard_output(kd):
    report = json.loads(kd("audit", TABLE, "--json").stdout)
    assert report["audit"] == "audit table"


def test_files_are_written_where_asked(kd, spoilt, tmp_path):
    kd("audit", TABLE, "--out", str(tmp_path / "out"))
    written = json.loads((tmp_path / "out" / "audit.json").read_text())
    assert written["identity"] == audit(spoilt).identity
    assert "<!doctype html>" in (tmp_path / "out" / "audit.html").read_text()


@pytest.mark.parametrize(("length", "status"), [(64, 0), (12, 0), (11, 1)])
def test_an_expected_identity_needs_twelve_digits(kd, spoilt, length, status):
    identity = audit(spoilt).identity
    assert kd("audit", TABLE, "--expect", identity[:length]).exit_code == status


def test_a_cell_alone_does_not_see_another_cells_fault(kd, spoilt):
    flip("runs/squad/llama/opt/teacher_text/f100/s0/model/model.safetensors")(spoilt)
    assert kd("audit", TABLE, "--cell", "method=uld").exit_code == 0
    assert kd("audit", TABLE, "--cell", "method=teacher_text,seed=0").exit_code == 1


def test_explain_names_the_field_and_both_values(kd, spoilt):
    assert "nothing would be made again" in kd("explain", TABLE).output
    replace_text("experiments/tiny.yaml", "learning_rate: 0.001", "learning_rate: 0.004")(spoilt)
    said = kd("explain", TABLE).output
    assert "spec.training.learning_rate: 0.001 → 0.004" in said
    assert said.splitlines()[0].endswith(
        "19 artifacts would be made again, 6 for reasons of their own."
    )
    assert "nothing" in kd("explain", "results/tiny/teachers/llama/squad/logits").output


def test_explain_names_what_is_to_be_made(kd):
    said = kd("explain", TABLE, "--config", "seeds=4").output
    assert "spec.seeds: [0, 1, 2] → [0, 1, 2, 3]" in said
    assert "uld/f100/s3/eval/squad/scores.json: none → to be made" in said


def test_explain_names_a_changed_output_and_a_lost_manifest(kd, spoilt):
    flip("models/opt/model/model.safetensors")(spoilt)
    (spoilt.results / "data/squad/data.manifest.json").unlink()
    said = kd("explain", TABLE).output
    assert "output model: " in said and "manifest: expected → there is no manifest" in said


def test_compare_shows_the_worst_difference_first(kd):
    runs = "results/tiny/runs/squad/llama/opt"
    done = kd("compare", f"{runs}/teacher_text/f100/s0", f"{runs}/uld/f100/s0", experiment=False)
    assert done.exit_code == 1
    rows = [line for line in done.output.splitlines() if line.startswith("│")]
    assert "method.loss" in rows[0] and "none" in rows[0] and "uld" in rows[0]
    kinds = [row.split("│")[1].strip() for row in rows]
    assert list(dict.fromkeys(kinds)) == ["parameters", "code", "inputs", "outputs"]


def test_compare_of_a_run_with_itself_exits_with_0(kd):
    run = "results/tiny/runs/squad/llama/opt/uld/f100/s0"
    assert kd("compare", run, run, experiment=False).exit_code == 0


def test_compare_refuses_what_has_nothing_in_common(kd):
    done = kd("compare", "results/tiny/data/squad", "results/tiny/models/opt", experiment=False)
    assert "no stage in common" in str(done.exception)
