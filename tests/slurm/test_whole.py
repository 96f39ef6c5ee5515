"""Whole experiments on SLURM with the real profile: the same bytes as without it."""

import subprocess

import pytest

from tests.slurm import single_node
from tests.slurm.conftest import SECOND_TARGET, slurm
from tests.workflow.test_smoke import RUN

pytestmark = [pytest.mark.slurm, pytest.mark.xdist_group("slurm")]


def test_the_table_and_all_behind_it_have_the_bytes_of_a_local_run(whole, finished):
    whole.smoke.finish()
    names = ["results/table2.csv", "results/table2.md", "results/table2.json"]
    names += [f"{RUN}/eval/squad/{name}" for name in ("predictions.parquet", "scores.json")]
    names += [f"{RUN}/model/model.safetensors", f"{RUN}/train.jsonl"]
    for name in names:
        there = (whole.smoke.checkout.path / name).read_bytes()
        assert there == (finished.path / name).read_bytes(), name


def test_a_second_experiment_runs_beside_it(whole):
    output = whole.second.finish()
    assert "kd: cancelling" not in output
    assert "kd: cancelling" not in whole.smoke.output()
    assert (whole.second.checkout.path / SECOND_TARGET).is_file()


def test_no_gpu_ever_has_two_jobs(whole):
    whole.smoke.finish()
    used = {device for devices in whole.workers.devices for device in devices}
    assert used == {str(index) for index in range(single_node.GPUS)}
    assert whole.workers.shared == []


def test_scores_share_one_job_and_take_turns(whole):
    whole.smoke.finish()
    logs = list((whole.smoke.checkout.path / "logs/slurm").glob("group_scores*/*.log"))
    assert len(logs) == 1  # of four scores
    job = slurm("squeue", "--states=all", "--noheader", "--format=%C %l", f"--jobs={logs[0].stem}")
    assert job.split() == ["1", "40:00"]  # one core, four times ten minutes


def test_logs_of_successful_jobs_are_kept(whole):
    whole.smoke.finish()
    folder = whole.smoke.checkout.path / "logs"
    assert list((folder / "slurm/rule_distill").rglob("*.log"))
    assert (folder / "smoke/runs/squad/llama/opt/uld/f100/s0/distill.log").is_file()


def test_downloads_and_the_tracking_store_stay_on_the_login_node(whole):
    whole.smoke.finish()
    on_nodes = {folder.name for folder in (whole.smoke.checkout.path / "logs/slurm").iterdir()}
    assert on_nodes.isdisjoint({f"rule_{name}" for name in ("data", "table", "track", "headline")})


def test_nothing_is_left_of_a_run_that_ended(whole):
    whole.smoke.finish()
    whole.second.finish()
    assert not list((whole.smoke.checkout.path / ".snakemake/slurm").glob("*.json"))


def test_starting_the_node_again_does_nothing(node):
    before = subprocess.run(["pgrep", "slurmctld"], capture_output=True, check=True).stdout
    single_node.start()
    assert subprocess.run(["pgrep", "slurmctld"], capture_output=True, check=True).stdout == before
