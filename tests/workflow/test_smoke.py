"""The smoke experiment, run for real: its table, its bytes, and what re-runs after an edit."""

import csv
import json
import sqlite3

import pytest
import yaml

from tests.workflow.conftest import ROOT, copy_checkout

# One worker: the finished checkout is made once.
pytestmark = [pytest.mark.workflow, pytest.mark.xdist_group("workflow")]
RUN = "results/smoke/runs/squad/llama/opt/uld/f100/s0"


def test_the_table_has_the_promised_columns(finished):
    with (finished.path / "results/table2.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == [
        "dataset",
        "metric",
        "teacher",
        "student",
        "teacher_score",
        "native",
        "teacher_text",
        "teacher_text_sd",
        "teacher_text_n",
        "uld",
        "uld_sd",
        "uld_n",
        "gain_uld",
        *(f"gain_uld_{name}" for name in ("lo", "hi", "p", "p_holm", "sd", "n")),
    ]
    (row,) = rows
    assert float(row["gain_uld"]) == float(row["uld"]) - float(row["teacher_text"])


def test_a_cell_leads_back_to_its_scores(finished):
    table = json.loads((finished.path / "results/table2.json").read_text())
    (row,) = table["rows"]
    for path, identity in row["cells"]["uld"]["scores"].items():
        scores = finished.path / "results/smoke" / path
        manifest = json.loads(scores.with_name("score.manifest.json").read_text())
        assert manifest["identity"] == identity
        assert (
            json.loads(scores.read_text())["metrics"]["f1"]["mean"] == row["cells"]["uld"]["value"]
        )


def test_every_run_is_in_mlflow(finished):
    with sqlite3.connect(finished.path / "results/smoke/mlflow.db") as database:
        (count,) = database.execute("select count(*) from runs").fetchone()
    assert count == 4  # two distillations, the teacher, the native student


def test_checkpoints_are_gone_after_success(finished):
    assert not list((finished.path / "checkpoints").rglob("*.safetensors"))


def test_a_second_run_has_nothing_to_do(finished):
    done = finished.smoke()
    assert "Nothing to be done" in done.stdout


def test_one_job_at_a_time_gives_the_same_bytes(finished, tmp_path):
    other = copy_checkout(tmp_path / "kd")
    done = other.smoke("--cores", "1")
    assert done.returncode == 0, done.stdout
    names = [f"results/table2.{end}" for end in ("csv", "long.csv", "md", "json", "tex")]
    names += [f"{RUN}/eval/squad/{name}" for name in ("predictions.parquet", "scores.json")]
    names += [f"{RUN}/model/model.safetensors", f"{RUN}/train.jsonl"]
    for name in names:
        assert (other.path / name).read_bytes() == (finished.path / name).read_bytes(), name


CLAIMS = yaml.safe_load((ROOT / "experiments/claims/uld.yaml").read_text())["claims"]
OTHERS = ", ".join(f"{name}: null" for name in CLAIMS if name != "uld_beats_text")
REPORT = {"report": 1, "all": 1}
TABLE = {"table": 1, "chart": 1, "track": 1, "headline": 1} | REPORT


@pytest.mark.parametrize(
    ("name", "old", "new", "jobs"),
    [
        ("kd/training/loop.py", '"""The training loop', '"""A training loop', {}),
        ("kd/losses/ot.py", "\n\n\n", "\n\n\n# a comment\n", {}),
        ("experiments/smoke.yaml", "for tests and a first look", "for a first look", REPORT),
        ("experiments/smoke.yaml", "Overall (smoke)", "Other", TABLE),
        ("experiments/smoke.yaml", "claims: null", f"claims: {{{OTHERS}}}", TABLE),
    ],
)
def test_what_does_not_matter_does_not_re_run(edited, name, old, new, jobs):
    edited.edit(name, old, new)
    assert edited.planned() == jobs


def append(checkout, name):
    with (checkout.path / name).open("a", encoding="utf-8") as file:
        file.write("\nEDITED = 1\n")


def test_an_edit_of_one_loss_re_runs_its_own_students_alone(edited):
    append(edited, "kd/losses/ot.py")
    assert edited.planned() == {"distill": 1, "predict_student": 1, "score": 1} | TABLE


def test_an_edit_of_a_metric_re_runs_scores_alone(edited):
    append(edited, "kd/evaluation/overlap.py")
    assert edited.planned() == {"score": 4} | TABLE


def test_an_edit_of_another_loss_re_runs_nothing(edited):
    append(edited, "kd/losses/kl.py")
    assert edited.planned() == {}


@pytest.mark.parametrize("seeds", ["seeds=2", "seeds=[0, 1]"])
def test_a_new_seed_runs_only_the_new_cells(edited, seeds):
    planned = edited.planned("--config", "experiment=smoke", seeds)
    assert planned == {"distill": 2, "predict_student": 2, "score": 2} | TABLE


def test_a_changed_weight_re_runs_its_own_students_alone(edited):
    method = "\nmethods: {uld: {weight: 3.0}}\ntraining:"
    edited.edit("experiments/smoke.yaml", "\ntraining:", method)
    assert edited.planned() == {"distill": 1, "predict_student": 1, "score": 1} | TABLE


def test_a_damaged_input_is_detected_and_named(edited):
    model = edited.path / RUN / "model" / "model.safetensors"
    original = model.read_bytes()
    try:
        model.write_bytes(original[:-1] + bytes([original[-1] ^ 1]))
        target = f"{RUN}/eval/squad/predictions.parquet"
        done = edited.smoke(target, "--forcerun", "predict_student")
        assert done.returncode != 0
        assert "changed since stage 'distill' wrote it" in done.stdout.strip().splitlines()[-1]
    finally:
        model.write_bytes(original)


def test_an_edit_of_the_conventions_of_losses_re_runs_every_student(edited):
    append(edited, "kd/losses/rows.py")
    planned = edited.planned()
    assert planned["distill"] == 2
    assert "pretrain" not in planned and "answer" not in planned
