"""Jobs that are killed, each in its own way, go on from their checkpoint to the same bytes."""

import os
import re
import signal

import pytest

from tests.slurm.conftest import (
    PATIENCE,
    RUN,
    SEEDS,
    Workers,
    assert_same_student,
    checkpoints_of,
    copy_of,
    interrupt,
    slurm,
    start,
    wait_for,
)

pytestmark = [pytest.mark.slurm, pytest.mark.xdist_group("slurm")]
TIME_LIMIT, SCANCEL, KILLED, DRAINED = range(4)  # seeds, each with its own fate
CONFIG = ("--config", "experiment=smoke", "seeds=4")


def job_of(output: str, seed: int) -> str:
    """Number of the last SLURM job that was submitted for a seed."""
    log = rf"rule_distill/smoke_squad_llama_opt_teacher_text_100_{seed}/(\d+)\.log"
    return re.findall(log, output)[-1]


def state_of(job: str) -> str:
    return slurm("squeue", "--states=all", "--noheader", "--format=%T", f"--jobs={job}").strip()


@pytest.fixture(scope="module")
def interrupted(node, longer, undisturbed, tmp_path_factory):
    """Four trainings in one Snakemake, each interrupted once; what was seen of them."""
    copy = copy_of(longer, tmp_path_factory.mktemp("interrupted") / "kd")
    with Workers(copy, hold=frozenset(SEEDS)) as workers:
        targets = [f"{RUN.format(seed=seed)}/model" for seed in SEEDS]
        run = start(copy, *targets, *CONFIG)
        wait_for("four checkpoints", lambda: len(workers.held) == len(SEEDS))
        jobs = {seed: job_of(run.output(), seed) for seed in SEEDS}
        slurm("scontrol", "update", f"JobId={jobs[TIME_LIMIT]}", "TimeLimit=1")
        slurm("scancel", jobs[SCANCEL])
        os.kill(workers.held[KILLED], signal.SIGKILL)
        ends = {
            TIME_LIMIT: "TIMEOUT",
            SCANCEL: "CANCELLED",
            KILLED: "FAILED",
        }
        for seed, state in ends.items():
            wait_for(f"{state} of seed {seed}", lambda: state_of(jobs[seed]) == state)  # noqa: B023
        for seed in ends:  # whoever is not done would be requeued too
            done = lambda: state_of(job_of(run.output(), seed)) == "COMPLETED"  # noqa: B023, E731
            wait_for(f"the end of seed {seed}", done)
        slurm("scontrol", "update", "NodeName=localhost", "State=DRAIN", "Reason=test")
        slurm("scontrol", "update", "NodeName=localhost", "State=DOWN", "Reason=test")
        wait_for("requeueing", lambda: state_of(jobs[DRAINED]) == "PENDING")
        slurm("scontrol", "update", "NodeName=localhost", "State=RESUME")
        yield run, workers
    interrupt(run)


@pytest.mark.parametrize(
    "seed", [TIME_LIMIT, SCANCEL, KILLED, DRAINED], ids=["time", "scancel", "kill", "drain"]
)
def test_it_resumes_and_ends_in_the_same_bytes(interrupted, undisturbed, seed):
    run, workers = interrupted
    run.finish()
    steps = workers.steps(seed)
    assert steps == sorted(steps), "what a checkpoint held was trained again"
    assert len(steps) > 1
    assert_same_student(run.checkout, undisturbed, seed)
    assert not (run.checkout.path / checkpoints_of(seed)).exists()


def test_a_drained_node_keeps_the_job_and_its_number(interrupted):
    run, _ = interrupted
    output = run.finish()
    submitted = re.findall(r"rule_distill/smoke_squad_llama_opt_teacher_text_100_(\d)/", output)
    jobs = {seed: submitted.count(str(seed)) for seed in SEEDS}
    assert jobs[DRAINED] < jobs[SCANCEL]  # requeued by SLURM, not submitted again


def test_after_a_kill_of_snakemake_its_jobs_are_cancelled_first(
    node, longer, undisturbed, tmp_path
):
    copy = copy_of(longer, tmp_path / "kd")
    target = f"{RUN.format(seed=0)}/model"
    with Workers(copy, hold=frozenset({0})) as workers:
        first = start(copy, target, *CONFIG)
        wait_for("a checkpoint", lambda: workers.held)
        orphan = job_of(first.output(), 0)
        first.process.kill()
        first.process.wait()
        assert state_of(orphan) == "RUNNING"

        locked = start(copy, target, *CONFIG)
        assert locked.process.wait(120) != 0
        assert "--unlock" in locked.output()
        start(copy, "--unlock", "--config", "experiment=smoke").finish()

        output = start(copy, target, *CONFIG).finish()
        assert f"kd: cancelling jobs {orphan}, left behind" in output
        assert state_of(orphan) == "CANCELLED"
        assert output.index("kd: cancelling") < output.index("has been submitted")
        steps = workers.steps(0)
    assert steps == sorted(steps)
    assert_same_student(copy, undisturbed, 0)


def test_a_failing_job_is_named_in_one_screenful_with_its_log(node, finished, tmp_path):
    copy = copy_of(finished, tmp_path / "kd")
    run = RUN.format(seed=0)
    model = copy.path / run / "model/model.safetensors"
    content = bytearray(model.read_bytes())
    content[-1] ^= 1
    model.write_bytes(content)
    target = f"{run}/eval/squad/predictions.parquet"
    options = ("--forcerun", "predict_student", "--retries", "0")
    failed = start(copy, target, *options, "--config", "experiment=smoke")
    assert failed.process.wait(PATIENCE) != 0
    screen = failed.output().splitlines()[-40:]
    assert any("Error in rule predict_student" in line for line in screen), failed.output()
    assert any("eval/squad/predict.log" in line for line in screen)
    assert any("logs/slurm/rule_predict_student" in line for line in screen)
    assert screen[-1].startswith("kd: error: ")
    assert "changed since stage 'distill' wrote it" in screen[-1]
