"""The projection of results into MLflow, on small results folders made here."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from mlflow.entities import Run, ViewType

from kd.errors import ArtifactError
from kd.evaluation.predictions import Prediction, write_predictions
from kd.experiment.methods import Method
from kd.experiment.schema import Training
from kd.experiment.stages import DistillSpec
from kd.provenance.canonical import digest
from kd.provenance.manifest import path_digest
from kd.tracking import Tracked, scores_of_table, track
from kd.tracking.server import TrackingError, place_of

ULD = "runs/squad/llama/opt/uld/f100/s0"
NATIVE = "native/squad/opt"
TEACHER = "teachers/llama/squad"
STEPS = 700  # with two values each more than one batch of MLflow


def write_manifest(
    folder: Path, stage: str, output: str, spec: Any = None, model: str | None = None
) -> str:
    """A manifest as `StageRecord` writes it, without running anything; returns its identity."""
    hashed = {
        "stage": stage,
        "spec": spec or {},
        "code": "c0de",
        "inputs": {
            "model": {"sha256": "0", "identity": model},
            "train": {"sha256": "5eed" * 16, "identity": None},
            "test": {"sha256": "7e57" * 16, "identity": None},
        },
        "outputs": {output: path_digest(folder / output)},
        "numerics": {},
    }
    context = {
        "commit": "abc123",
        "dirty": True,
        "started": "2026-01-02T03:04:05+00:00",
        "seconds": 90.5,
        "peak_memory_mib": 512,
    }
    notes = {"selected": {"step": 600, "validation_loss": 0.5}} if stage == "distill" else {}
    manifest = {"schema": 1, "identity": digest(hashed), "hashed": hashed}
    path = folder / f"{stage}.manifest.json"
    path.write_text(json.dumps(manifest | {"notes": notes, "context": context}))
    return digest(hashed)


def write_run(results: Path, path: str = ULD, weight: float = 1.5, steps: int = STEPS) -> str:
    """A finished distillation; returns its identity."""
    folder = results / path
    folder.mkdir(parents=True, exist_ok=True)
    records = [{"step": n, "loss": 1 / n, "learning_rate": 0.001} for n in range(1, steps + 1)]
    records.append({"step": steps, "validation_loss": 0.5})
    (folder / "train.jsonl").write_text("".join(json.dumps(r) + "\n" for r in records))
    method = Method(loss="uld", weight=weight)
    training = Training(learning_rate=0.001)
    spec = DistillSpec(dataset="squad", method=method, training=training, fraction=100, seed=0)
    return write_manifest(folder, "distill", "train.jsonl", spec.model_dump(mode="json"))


def write_evaluation(
    results: Path, subject: str, model: str, f1: float = 50.0, dataset: str = "squad"
) -> str:
    """Predictions and scores of a subject; returns the path of the scores."""
    folder = results / subject / "eval" / dataset
    folder.mkdir(parents=True, exist_ok=True)
    row = Prediction(
        id="q1",
        prompt_sha256="0",
        prediction="Oslo",
        references=["Oslo", "in Oslo"],
        finish_reason="eos",
        tokens=2,
    )
    write_predictions([row], folder / "predictions.parquet")
    predicted = write_manifest(folder, "predict", "predictions.parquet", {"shots": 2}, model)
    scores = {"n": 1, "metrics": {"f1": {"mean": f1}, "bertscore": {"unavailable": "offline"}}}
    (folder / "scores.json").write_text(json.dumps(scores))
    write_manifest(folder, "score", "scores.json", {"predicted": predicted})
    return f"{subject}/eval/{dataset}/scores.json"


def runs_of(results: Path, *, deleted: bool = False) -> dict[str, Run]:
    """The MLflow runs of the default database, by path."""
    client = MlflowClient(f"sqlite:///{results.resolve()}/mlflow.db")
    experiment = client.get_experiment_by_name("micro")
    assert experiment is not None
    view = ViewType.DELETED_ONLY if deleted else ViewType.ACTIVE_ONLY
    found = client.search_runs([experiment.experiment_id], run_view_type=view)
    assert len({run.data.tags["kd.path"] for run in found}) == len(found)
    return {run.data.tags["kd.path"]: run for run in found}


@pytest.fixture(scope="module")
def jobs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str], list[bytes]]:
    """A run, a native student and a teacher, tracked by two processes at once from nothing."""
    results = tmp_path_factory.mktemp("results") / "micro"
    scores = [
        write_evaluation(results, ULD, write_run(results), f1=61.25),
        write_evaluation(results, NATIVE, "student", f1=20.0),
        write_evaluation(results, TEACHER, "teacher", f1=80.0),
    ]
    code = (
        "import sys; from pathlib import Path; from kd.tracking import track; "
        "print(track(Path(sys.argv[1]), sys.argv[2:], experiment='micro').stamp(), end='')"
    )
    command = [sys.executable, "-c", code, str(results), *scores]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE) for _ in range(2)]
    stamps = [job.communicate()[0] for job in both]
    assert [job.returncode for job in both] == [0, 0]
    return results, scores, stamps


@pytest.fixture(scope="module")
def tracked(jobs: tuple[Path, list[str], list[bytes]]) -> tuple[Path, list[str], Tracked]:
    """The same folder, and what tracking it once more in this process gives."""
    results, scores, _ = jobs
    return results, scores, track(results, scores, experiment="micro")


def test_a_distillation_has_tags_params_scores_and_its_whole_curve(
    tracked: tuple[Path, list[str], Tracked],
) -> None:
    results = tracked[0]
    run = runs_of(results)[ULD]
    identity = json.loads((results / ULD / "distill.manifest.json").read_text())["identity"]
    expected = {
        "dataset": "squad",
        "teacher": "llama",
        "student": "opt",
        "method": "uld",
        "fraction": "100",
        "seed": "0",
        "kind": "distillation",
        "experiment": "micro",
        "kd.identity": identity,
        "kd.code": "c0de",
        "git.commit": "abc123",
        "git.dirty": "true",
    }
    assert expected.items() <= run.data.tags.items()
    assert run.info.run_name == "uld opt squad/llama f100 s0"
    assert run.data.params["method.weight"] == "1.5"
    assert run.data.params["test.squad.shots"] == "2"
    assert run.data.metrics["test/squad/f1"] == 61.25
    assert "test/squad/bertscore" not in run.data.metrics
    assert run.data.metrics["validation/selected_step"] == 600
    assert run.data.metrics["work/seconds"] == 90.5
    assert run.inputs is not None
    rows = run.inputs.dataset_inputs[0]
    assert (rows.dataset.name, rows.dataset.digest) == ("squad", "5eed" * 3)
    assert run.info.end_time - run.info.start_time == 90_500
    client = MlflowClient(f"sqlite:///{results.resolve()}/mlflow.db")
    curve = client.get_metric_history(run.info.run_id, "train/loss")
    assert [(point.step, point.value) for point in curve] == [
        (n, 1 / n) for n in range(1, STEPS + 1)
    ]
    validation = client.get_metric_history(run.info.run_id, "validation/loss")
    assert [(point.step, point.value) for point in validation] == [(STEPS, 0.5)]


def test_artifacts_are_small_and_lie_in_the_results_folder(
    tracked: tuple[Path, list[str], Tracked],
) -> None:
    results = tracked[0]
    folder = results / "mlruns" / runs_of(results)[ULD].info.run_id / "artifacts"
    found = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert found == {
        "distill.manifest.json",
        "train.jsonl",
        "eval/squad/predict.manifest.json",
        "eval/squad/score.manifest.json",
        "eval/squad/scores.json",
        "eval/squad/predictions_sample.csv",
    }
    sample = (folder / "eval/squad/predictions_sample.csv").read_text()
    assert sample.splitlines()[1] == "q1,Oslo,Oslo | in Oslo,eos,2"


def test_teachers_and_native_students_are_runs_of_their_own(
    tracked: tuple[Path, list[str], Tracked],
) -> None:
    runs = runs_of(tracked[0])
    native, teacher = runs[f"{NATIVE}/eval/squad"], runs[f"{TEACHER}/eval/squad"]
    assert (native.info.run_name, native.data.tags["kind"]) == ("native opt squad", "native")
    assert (teacher.info.run_name, teacher.data.tags["kind"]) == ("teacher llama squad", "teacher")
    assert native.data.metrics["test/squad/f1"] == 20.0
    assert teacher.data.metrics["test/squad/f1"] == 80.0


def test_tracking_again_writes_nothing_and_gives_the_same_stamp(
    tracked: tuple[Path, list[str], Tracked],
) -> None:
    results, scores, first = tracked
    before = {path: run.info.run_id for path, run in runs_of(results).items()}
    again = track(results, scores[::-1], experiment="micro")
    assert (again.created, again.extended, again.superseded) == (0, 0, 0)
    assert {path: run.info.run_id for path, run in runs_of(results).items()} == before
    assert again.stamp() == first.stamp()
    paths = [run["path"] for run in json.loads(first.stamp())["runs"]]
    assert paths == [f"{NATIVE}/eval/squad", ULD, f"{ULD}/eval/squad", f"{TEACHER}/eval/squad"]


def test_another_evaluation_is_added_to_the_run_of_its_student(
    tracked: tuple[Path, list[str], Tracked],
) -> None:
    results, _, _ = tracked
    path = "runs/squad/llama/opt/uld/f100/s1"
    model = write_run(results, path, steps=3)
    own = write_evaluation(results, path, model, f1=10.0)
    track(results, [own], experiment="micro")
    first = runs_of(results)[path]
    other = write_evaluation(results, path, model, f1=5.0, dataset="dialogsum")
    assert track(results, [other], experiment="micro").extended == 1
    run = runs_of(results)[path]
    assert run.info.run_id == first.info.run_id
    assert (run.data.metrics["test/squad/f1"], run.data.metrics["test/dialogsum/f1"]) == (10, 5)


def test_a_run_made_anew_supersedes_the_old_one(
    tracked: tuple[Path, list[str], Tracked],
) -> None:
    results, _, _ = tracked
    path = "runs/squad/llama/opt/uld/f50/s0"
    scores = write_evaluation(results, path, write_run(results, path, weight=1.0, steps=3))
    track(results, [scores], experiment="micro")
    write_run(results, path, weight=2.0, steps=3)
    with pytest.raises(ArtifactError, match="earlier student"):
        track(results, [scores], experiment="micro")
    write_evaluation(results, path, write_run(results, path, weight=2.0, steps=3))
    assert track(results, [scores], experiment="micro").superseded == 1
    new, old = runs_of(results)[path], runs_of(results, deleted=True)[path]
    assert (old.data.params["method.weight"], new.data.params["method.weight"]) == ("1.0", "2.0")
    assert old.data.tags["kd.superseded_by"] == new.info.run_id


def test_a_projection_cut_short_is_made_anew(tracked: tuple[Path, list[str], Tracked]) -> None:
    results, _, _ = tracked
    path = "runs/squad/llama/opt/uld/f25/s0"
    scores = write_evaluation(results, path, write_run(results, path, steps=3))
    track(results, [scores], experiment="micro")
    cut = runs_of(results)[path].info.run_id
    client = MlflowClient(f"sqlite:///{results.resolve()}/mlflow.db")
    client.update_run(cut, status="RUNNING")
    track(results, [scores], experiment="micro")
    assert runs_of(results)[path].info.run_id != cut


def test_two_processes_at_once_on_a_fresh_database_track_everything_once(
    jobs: tuple[Path, list[str], list[bytes]], tracked: tuple[Path, list[str], Tracked]
) -> None:
    """Two concurrent first uses of one sqlite file crash MLflow's own migrations."""
    assert jobs[2] == [tracked[2].stamp().encode()] * 2
    assert tracked[2].created == 0
    assert {ULD, f"{NATIVE}/eval/squad", f"{TEACHER}/eval/squad"} <= runs_of(jobs[0]).keys()


def test_a_copied_results_folder_keeps_its_artifacts_to_itself(
    tracked: tuple[Path, list[str], Tracked], tmp_path: Path
) -> None:
    """MLflow stores absolute paths, so that a copy would write into the original."""
    original, scores, _ = tracked
    copy = Path(shutil.copytree(original, tmp_path / "copy"))
    new = write_evaluation(copy, "native/squad/bloom", "student")
    assert track(copy, [*scores, new], experiment="micro").created == 1
    for run in runs_of(copy).values():
        artifacts = copy.resolve() / "mlruns" / run.info.run_id / "artifacts"
        assert run.info.artifact_uri == artifacts.as_uri()
        assert artifacts.is_dir()


def test_on_a_shared_server_only_ones_own_runs_are_superseded(
    tracked: tuple[Path, list[str], Tracked], tmp_path: Path
) -> None:
    server = f"sqlite:///{tracked[0].resolve()}/mlflow.db"
    took = []
    for owner, weight in (("ann", 1.0), ("ben", 2.0), ("ann", 3.0)):
        results = tmp_path / owner
        scores = write_evaluation(results, ULD, write_run(results, weight=weight, steps=3))
        done = track(results, [scores], experiment="shared", tracking_uri=server)
        took.append((done.created, done.superseded))
    assert took == [(1, 0), (1, 0), (1, 1)]
    client = MlflowClient(server)
    experiment = client.get_experiment_by_name("shared")
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id])
    assert {run.data.params["method.weight"] for run in runs} == {"2.0", "3.0"}


def test_scores_that_were_edited_are_refused(tmp_path: Path) -> None:
    path = write_evaluation(tmp_path, NATIVE, "student")
    (tmp_path / path).write_text('{"metrics": {"f1": {"mean": 99.0}}}')
    with pytest.raises(ArtifactError, match=r"scores.json: changed since stage 'score'"):
        track(tmp_path, [path], experiment="micro")


@pytest.mark.parametrize(
    "path", ["scores.json", "models/opt/eval/squad/scores.json", f"{ULD}/scores.json"]
)
def test_a_path_that_names_no_subject_is_refused(tmp_path: Path, path: str) -> None:
    with pytest.raises(ArtifactError, match="not the path of scores"):
        track(tmp_path, [path], experiment="micro")


def test_a_run_that_a_table_shows_only_the_curve_of_is_tracked(tmp_path: Path) -> None:
    identity = write_run(tmp_path)
    done = track(tmp_path, [f"{ULD}/train.jsonl"], experiment="micro")
    assert done.identities == {ULD: identity}
    with pytest.raises(ArtifactError, match="not the path of scores"):
        track(tmp_path, [f"{NATIVE}/train.jsonl"], experiment="micro")


def test_missing_folders_and_scores_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="no such results folder"):
        track(tmp_path / "absent", [], experiment="micro")
    with pytest.raises(ArtifactError, match="Run `kd predict` first"):
        track(tmp_path, [f"{NATIVE}/eval/squad/scores.json"], experiment="micro")


def test_an_unreachable_server_is_named_without_its_credentials(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    path = write_evaluation(tmp_path, NATIVE, "student")
    with pytest.raises(TrackingError) as error:
        track(
            tmp_path,
            [path],
            experiment="micro",
            tracking_uri="http://alice:s3cret@127.0.0.1:9/x?token=t0ken",
        )
    assert str(error.value).startswith("http://127.0.0.1:9: MLflow cannot be used (no answer)")
    said = str(error.value) + "".join(capfd.readouterr())
    assert not any(secret in said for secret in ("alice", "s3cret", "t0ken"))


def test_a_tracking_server_decides_where_artifacts_go(tmp_path: Path) -> None:
    assert place_of(tmp_path, "https://mlflow.example.org").artifacts is None
    assert place_of(tmp_path, "postgresql+psycopg2://u:p@db/x").artifacts == tmp_path / "mlruns"
    assert str(place_of(tmp_path, "postgresql://u:p@db:5432/x")) == "postgresql://db:5432"


def test_the_scores_behind_a_table_are_read_from_its_json(tmp_path: Path) -> None:
    table = tmp_path / "table2.json"
    cells = {"uld": {"scores": {"b": "1", "a": "2"}}, "native": {"scores": {"a": "2"}}}
    table.write_text(json.dumps({"rows": [{"dataset": "squad", "cells": cells}]}))
    assert scores_of_table(table) == ["a", "b"]
    table.write_text("{}")
    with pytest.raises(ArtifactError, match="no readable table"):
        scores_of_table(table)


def test_importing_tracking_does_not_import_mlflow_or_torch() -> None:
    code = "import sys, kd.tracking; print({'mlflow', 'torch', 'transformers'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
