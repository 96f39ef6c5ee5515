"""The parts that the checks stand on: weights, lock, figures, places, the plan of a dry run."""

import struct
from types import SimpleNamespace

import numpy as np
import pytest
from safetensors.numpy import save_file

from kd.audit import outputs, readme
from kd.audit.chain import Chain
from kd.audit.lock import deviations, installed_versions, read_lock
from kd.audit.places import input_places, run_at, writer_of
from kd.audit.readme import read_figures
from kd.audit.weights import DamagedWeightsError, damaged_tensors, parameter_count
from kd.errors import ArtifactError
from kd.experiment.layout import Run
from kd.workflow import Planned, WorkflowError, dry_run, parse_plan
from tests.audit.fabrication import ROOT
from tests.audit.mutations import audit
from tests.audit.tampering import forge_column


@pytest.mark.parametrize("kind", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize(("value", "infinite", "found"), [
    (np.nan, True, True),
    (np.nan, False, True),
    (np.inf, True, True),
    (-np.inf, False, False),
    (6e4, True, False),
    (0.0, True, False),
])  # fmt: skip
def test_values_that_are_no_numbers_are_found(tmp_path, kind, value, infinite, found):
    path = tmp_path / "w.safetensors"
    tensor = np.ones(10, dtype=kind)
    tensor[7] = value
    save_file({"good": np.ones(3, dtype=kind), "bad": tensor}, path)
    assert damaged_tensors(path, infinite=infinite) == (["bad"] if found else [])


@pytest.mark.parametrize(("bits", "found"), [(0x7F80, True), (0x7FC0, True), (0x7F7F, False)])
def test_bfloat16_is_read_by_its_bits(tmp_path, bits, found):
    header = b'{"w":{"dtype":"BF16","shape":[2],"data_offsets":[0,4]}}'
    path = tmp_path / "w.safetensors"
    path.write_bytes(struct.pack("<Q", len(header)) + header + struct.pack("<HH", 0x3F80, bits))
    assert damaged_tensors(path) == (["w"] if found else [])
    assert parameter_count(path) == 2


@pytest.mark.parametrize("cut", [1, 20, 100])
def test_half_a_file_of_weights_is_refused(tmp_path, cut):
    path = tmp_path / "w.safetensors"
    save_file({"w": np.ones(10, dtype=np.float32)}, path)
    path.write_bytes(path.read_bytes()[:-cut])
    with pytest.raises(DamagedWeightsError):
        damaged_tensors(path)


def test_the_shipped_lock_pins_everything_with_hashes():
    lock = read_lock(ROOT / "requirements.lock")
    assert lock is not None and lock.unhashed == ()
    constraints = (ROOT / "constraints.txt").read_text().splitlines()
    pins = dict(line.split("==") for line in constraints if "==" in line and line[0] != "#")
    assert deviations(pins, lock) == {}
    assert set(lock.versions) >= {"torch", "transformers", "snakemake", "mlflow"}


def test_the_shipped_lock_names_no_index_and_no_path():
    text = (ROOT / "requirements.lock").read_text()
    assert "://" not in text and "--index" not in text and "--find-links" not in text


def test_a_build_of_a_version_is_that_version(tmp_path):
    (tmp_path / "lock").write_text("torch==2.13.0 \\\n    --hash=sha256:00\nA_b.C==1\n")
    lock = read_lock(tmp_path / "lock")
    assert lock is not None and lock.unhashed == ("a-b-c",)
    assert deviations({"torch": "2.13.0+cpu", "a-b-c": "1", "x": "3"}, lock) == {}
    assert deviations({"Torch": "2.12.0"}, lock) == {"Torch": ("2.12.0", "2.13.0")}
    assert "pytest" in installed_versions()


@pytest.mark.parametrize(
    ("path", "writer"),
    [
        ("data/squad/test.parquet", ("data/squad", "data")),
        ("models/opt/model", ("models/opt", "pretrain")),
        ("hub/opt/model", ("hub/opt", "fetch")),
        ("teachers/llama/squad/answers.parquet", ("teachers/llama/squad", "answer")),
        ("teachers/llama/squad/logits", ("teachers/llama/squad", "extract")),
        ("runs/d/t/s/m/f100/s0/model", ("runs/d/t/s/m/f100/s0", "distill")),
        ("runs/d/t/s/m/f100/s0/train.jsonl", ("runs/d/t/s/m/f100/s0", "distill")),
        ("native/d/s/eval/d/predictions.parquet", ("native/d/s/eval/d", "predict")),
        ("native/d/s/eval/d/scores.json", ("native/d/s/eval/d", "score")),
        ("tables/table2.csv", ("tables", "table2")),
        ("mlruns/1/artifacts", None),
    ],
)
def test_a_place_tells_its_writer(path, writer):
    assert writer_of(path) == writer


def test_a_place_tells_what_it_must_have_read():
    run = Run("squad", "llama", "opt", "uld", 100, 3)
    assert run_at(f"{run.path}/eval/qed") == run
    assert input_places("predict", f"{run.path}/eval/qed", "model") == (f"{run.path}/model",)
    assert input_places("predict", "native/squad/opt/eval/qed", "model") == (
        "models/opt/model",
        "hub/opt/model",
    )
    assert input_places("distill", run.path, "logits") == ("teachers/llama/squad/logits",)
    assert input_places("distill", run.path, "something") == ()
    assert run_at("runs/squad/llama/opt/uld/f100") is None


def test_figures_are_read_below_their_comment(tmp_path):
    page = tmp_path / "README.md"
    page.write_text(
        "| a |\n|---|\n| 1 |\n\n<!-- figures: experiment=micro table=t -->\n\n"
        "| dataset | ULD |\n|---|---|\n| squad | 1.5 |\n\n| other |\n|---|\n| 2 |\n"
    )
    (figures,) = read_figures(page)
    assert figures.values == {"experiment": "micro", "table": "t"}
    assert (figures.headers, figures.rows) == (["dataset", "uld"], [["squad", "1.5"]])


@pytest.mark.parametrize(
    ("text", "value", "right"),
    [
        ("78.1", 78.1, True),
        ("78.1", None, False),
        ("78.1 ± 0.3", None, False),
        ("n/a", None, True),
        ("–", None, True),
        ("n/a", 78.1, False),
    ],
)
def test_a_figure_is_right_only_if_it_was_compared(text, value, right):
    assert readme._agrees(text, value, None) is right


def test_a_dry_run_is_read_job_by_job():
    output = (
        "Building DAG of jobs...\n\n[Sun]\nJob 14: Distil opt (100 %, seed 0)\n"
        "Reason: Params have changed: before: 1\n[Sun]\n"
        "rule plain:\n    reason: Missing output files: x\nReasons:\n    (check individual jobs)\n"
    )
    assert parse_plan(output) == [
        Planned("Distil opt (100 %, seed 0)", "Params have changed: before: 1"),
        Planned("plain", "Missing output files: x"),
    ]


def test_nothing_is_planned_without_a_workflow(tmp_path):
    with pytest.raises(WorkflowError, match="no Snakefile"):
        dry_run(["x"], experiment="micro", overrides={}, checkout=tmp_path)


@pytest.mark.parametrize("column", ["gain_uld_p", "gain_uld_lo"])
def test_a_forged_statistic_is_named_with_what_the_scores_give(spoil, column):
    world = spoil(forge_column(column, "0.0001"))
    found = audit(world).findings[0]
    assert (found.status, found.rule) == ("fail", "table made again")
    assert f"table2.csv is not what its scores give: line 2, column {column} says 0.0001" in (
        found.evidence
    )


@pytest.mark.parametrize(
    ("path", "stage"),
    [
        ("runs/squad/llama/opt/uld/f100/s0/eval/squad/scores.json", "score"),
        ("runs/squad/llama/opt/uld/f100/s0/train.jsonl", "distill"),  # cells of training curves
    ],
)
def test_a_cell_leads_to_the_stage_that_wrote_its_file(tmp_path, path, stage):
    assert Chain(tmp_path).maker(path).key == f"{path.rpartition('/')[0]}/{stage}"


def test_a_file_of_no_stage_leads_nowhere(tmp_path):
    with pytest.raises(ArtifactError, match="no stage"):
        Chain(tmp_path).maker("notes.txt")


@pytest.mark.parametrize(
    ("metric", "student", "above"),
    [("f1", 0.9, True), ("f1", 0.3, False), ("brier", 0.9, False), ("brier", 0.3, True)],
)
def test_a_student_is_above_its_teacher_where_it_is_better(monkeypatch, metric, student, above):
    """Of a Brier score less is better."""
    cells = {"uld": SimpleNamespace(scores=["own"]), "teacher": SimpleNamespace(scores=["other"])}
    monkeypatch.setattr(outputs, "TEACHER", "teacher")
    spreads = {"own": (student, 0.01), "other": (0.6, 0.01)}
    monkeypatch.setattr(outputs, "_spread", lambda voice, path, metric: spreads[path])
    line = SimpleNamespace(metric=metric, cells=cells)
    assert outputs._is_above(None, line, "uld") is above
