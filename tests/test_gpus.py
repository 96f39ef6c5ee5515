"""Leases of GPUs: real processes, made-up GPUs."""

import os
import signal
import subprocess
import sys
import time
from itertools import pairwise

import pytest
import torch

from kd.commands.stages import score
from kd.errors import ModelError
from kd.experiment.schema import BertScore, Evaluation
from kd.experiment.stages import ScoreSpec
from kd.gpus import LEASES, VISIBLE, lease_folder, leased, visible_gpus

JOB = """
import os, sys, time
from kd.gpus import leased
count, seconds = int(sys.argv[1]), float(sys.argv[2])
with leased(count):
    start = time.monotonic()
    print(os.environ["CUDA_VISIBLE_DEVICES"], flush=True)
    time.sleep(seconds)
    print(start, time.monotonic(), flush=True)
"""


@pytest.fixture(autouse=True)
def machine(tmp_path, monkeypatch):
    """A machine with two GPUs."""
    monkeypatch.setenv(LEASES, str(tmp_path / "leases"))
    monkeypatch.setenv(VISIBLE, "0,1")


def job(count=1, seconds=0.2):
    return subprocess.Popen(
        [sys.executable, "-c", JOB, str(count), str(seconds)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )


def test_six_jobs_on_two_gpus_never_share_one():
    jobs = [job() for _ in range(6)]
    spans = {"0": [], "1": []}
    for one in jobs:
        name, times = one.communicate(timeout=120)[0].splitlines()
        spans[name].append(tuple(float(time) for time in times.split()))
    assert all(spans.values()), "one of them was never used"
    for held in spans.values():
        held.sort()
        for (_, end), (start, _) in pairwise(held):
            assert start >= end


def test_a_killed_job_leaves_its_gpu_to_the_next():
    both = [job(seconds=60), job(seconds=60)]
    names = {one.stdout.readline().strip() for one in both}
    assert names == {"0", "1"}
    waiting = job(seconds=0)
    time.sleep(0.5)
    assert waiting.poll() is None
    both[0].send_signal(signal.SIGKILL)
    both[0].wait()
    assert waiting.communicate(timeout=60)[0].splitlines()[0] in names
    both[1].kill()
    both[1].wait()


def test_two_jobs_that_want_both_gpus_do_not_wait_for_each_other():
    jobs = [job(count=2), job(count=2), job(count=1)]
    seen = [one.communicate(timeout=120)[0].splitlines()[0] for one in jobs]
    assert seen[:2] == ["0,1", "0,1"]


def test_the_environment_is_that_of_the_block_alone():
    with leased(1):
        assert os.environ[VISIBLE] == "0"
    assert os.environ[VISIBLE] == "0,1"
    with leased(0):
        assert os.environ[VISIBLE] == "-1"


@pytest.mark.parametrize(
    ("told", "seen"),
    [
        ("", []),
        ("-1", []),
        ("2", ["2"]),
        ("1,-1,0", ["1"]),
        ("GPU-ab, GPU-cd", ["GPU-ab", "GPU-cd"]),
    ],
)
def test_what_can_be_seen_is_what_cuda_would_see(monkeypatch, told, seen):
    monkeypatch.setenv(VISIBLE, told)
    assert visible_gpus() == seen


def test_without_a_gpu_one_that_is_asked_for_is_refused_in_one_sentence(monkeypatch):
    monkeypatch.setenv(VISIBLE, "")
    said = r"needs 1 GPU\(s\), but none can be seen .*--gpus 0"
    with pytest.raises(ModelError, match=said), leased(1):
        pass


def test_without_a_wish_the_choice_is_said(monkeypatch, capsys):
    monkeypatch.setenv(VISIBLE, "")
    with leased(None):
        assert os.environ[VISIBLE] == "-1"
    assert "device: the CPU" in capsys.readouterr().err
    monkeypatch.setenv(VISIBLE, "7")
    with leased(None):
        assert os.environ[VISIBLE] == "7"
    assert "device: GPU 7" in capsys.readouterr().err
    with leased(None, usual=2):
        assert os.environ[VISIBLE] == "-1"


def test_locks_of_another_user_can_still_be_tried(monkeypatch):
    """In a folder with the sticky bit, a file of another user cannot be opened to create it."""
    with leased(1):
        pass
    path = lease_folder() / "0.lock"
    opened = os.open

    def refusing(name, flags, *mode):
        if flags & os.O_CREAT and str(name) == str(path):
            raise PermissionError
        return opened(name, flags, *mode)

    monkeypatch.setattr(os, "open", refusing)
    with leased(1):
        assert os.environ[VISIBLE] == "0"


def test_jobs_of_a_scheduler_do_not_wait_for_each_others_gpu_of_the_same_number(monkeypatch):
    monkeypatch.delenv(LEASES, raising=False)
    for name in ("SLURM_JOB_ID", "PBS_JOBID", "LSB_JOBID"):
        monkeypatch.delenv(name, raising=False)
    outside = lease_folder()
    folders = set()
    for job in ("17", "18"):
        monkeypatch.setenv("SLURM_JOB_ID", job)
        folders.add(lease_folder())
    assert len(folders) == 2 and outside not in folders


@pytest.mark.parametrize(("encoder", "seen"), [(True, "0"), (False, "-1")])
def test_scoring_leases_a_gpu_for_its_encoder_alone(monkeypatch, tmp_path, encoder, seen):
    """Otherwise all encoders would run on the first GPU, beside whoever holds it."""
    given = []
    monkeypatch.setattr(
        "kd.evaluation.score.score", lambda *_: given.append(os.environ.get(VISIBLE))
    )
    monkeypatch.setattr("kd.models.loading.pick_device", lambda: None)
    bertscore = BertScore(model="organisation/encoder", layer=1) if encoder else None
    spec = ScoreSpec(evaluation=Evaluation(metrics=["f1"], bertscore=bertscore))
    score(spec.model_dump_json(), tmp_path / "p.parquet", tmp_path / "scores.json")
    assert given == [seen]


def test_scoring_refuses_a_gpu_that_torch_cannot_use(tmp_path):
    if torch.cuda.is_available():
        pytest.skip("torch can use the GPU here")
    bertscore = BertScore(model="organisation/encoder", layer=1)
    spec = ScoreSpec(evaluation=Evaluation(metrics=["f1"], bertscore=bertscore))
    with pytest.raises(ModelError, match="cannot use it"):
        score(spec.model_dump_json(), tmp_path / "p.parquet", tmp_path / "s.json", gpus=1)
