"""Two processes with half a batch each train the student that one process trains."""

import json
import signal
import sys
from pathlib import Path

import pytest
import torch

from kd.errors import TrainingError
from kd.interruption import Interrupted
from kd.logits import LogitWriter
from kd.parallel.launch import run_ranks
from kd.parallel.ranks import Ranks, join
from kd.resume.checkpoints import CheckpointFolder

from .one_rank import build, examples

SCRIPT = Path(__file__).with_name("one_rank.py")
TRAINING = {
    "learning_rate": 1e-3,
    "batch_size": 4,  # of nine rows: the last batch of an epoch has one, the second rank none
    "epochs": 2,
    "validations": 3,
    "cycle_momentum": False,
}


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    folder = tmp_path_factory.mktemp("logits") / "store"
    generator = torch.Generator().manual_seed(5)
    with LogitWriter(folder, vocabulary=30, epsilon=0.0) as writer:
        for row in examples():
            tokens = torch.tensor(row.target[:-1]) % 30
            logits = 2 * torch.randn(len(tokens), 30, generator=generator)
            writer.add(row.id, tokens, logits, ends=torch.arange(len(tokens)))
    return folder


@pytest.fixture(scope="module")
def alone(store, tmp_path_factory):
    """The same training by this process."""
    loop = build(store, Ranks(), TRAINING)
    loop.run(CheckpointFolder(tmp_path_factory.mktemp("alone"), "f"), lambda *_: None)
    return {"history": loop.history, "weights": dict(loop.model.state_dict()), "best": loop.best}


@pytest.fixture
def train(store, tmp_path, monkeypatch):
    """Run to the end in real processes; returns what each rank wrote."""
    monkeypatch.setenv("PYTHONPATH", ":".join(sys.path))

    def run(name, processes, training=None, **order):
        out = tmp_path / name
        out.mkdir(exist_ok=True)
        settings = TRAINING | {"processes": processes} | (training or {})
        given = {"out": str(out), "store": str(store), "training": settings} | order
        run_ranks(processes, [sys.executable, str(SCRIPT), json.dumps(given)])
        return [torch.load(out / f"{rank}.pt") for rank in range(processes)]

    return run


def difference(weights, others):
    return max(float((weights[name] - others[name]).abs().max()) for name in weights)


def assert_same_curve(curve, expected):
    for found, record in zip(curve, expected, strict=True):
        assert {name: record[name] for name in found} == pytest.approx(found, rel=1e-6, abs=1e-6)
        assert found.keys() >= record.keys() - {"logit_error_mean", "logit_error_max"}


@pytest.mark.parametrize(
    "settings", [{}, {"micro_batch": 1}, {"micro_batch": 1, "fused_head": True}]
)
def test_two_processes_train_as_one(train, alone, settings):
    ranks = train("two", 2, settings)
    assert ranks[0]["history"] == ranks[1]["history"]
    assert_same_curve(ranks[0]["history"], alone["history"])
    assert difference(ranks[0]["weights"], ranks[1]["weights"]) == 0
    assert difference(ranks[0]["weights"], alone["weights"]) < 1e-6
    assert ranks[0]["best"] == pytest.approx(alone["best"], rel=1e-6)


def test_without_the_wrapper_the_ranks_drift_apart(train):
    """What the test above would find if gradients were not exchanged."""
    ranks = train("two", 2, unwrapped=True)
    assert difference(ranks[0]["weights"], ranks[1]["weights"]) > 1e-3


def test_a_signal_to_one_rank_stops_all_after_one_step_and_they_go_on(train, alone, tmp_path):
    with pytest.raises(Interrupted):
        train("two", 2, kill_at=2, kill_rank=1, signal=signal.SIGTERM)
    (kept,) = (tmp_path / "two" / "checkpoints").glob("*/step-*")
    assert kept.name in ("step-00000002", "step-00000003")
    ranks = train("two", 2)
    assert_same_curve(ranks[0]["history"], alone["history"])
    assert difference(ranks[1]["weights"], alone["weights"]) < 1e-6


def test_a_killed_rank_ends_the_others_and_they_go_on(train, alone):
    steps = {"checkpoint_steps": 2}
    with pytest.raises(TrainingError, match="process 1 of 2 ended with status -9"):
        train("two", 2, steps, kill_at=3, kill_rank=1, signal=signal.SIGKILL)
    ranks = train("two", 2, steps)
    assert difference(ranks[0]["weights"], alone["weights"]) < 1e-6


def test_another_number_of_processes_than_asked_for_is_refused(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "3")
    with pytest.raises(TrainingError, match=r"'training.processes' is 2, but 3 were started"):
        join(2, lambda: torch.device("cpu"))


def test_alone_everything_is_that_of_a_group_of_one():
    alone = Ranks()
    assert alone.share([1, 2, 3]) == [1, 2, 3]
    assert alone.summed([1.5]) == [1.5]
    assert alone.any([True, False]) == [True, False]
    assert alone.gathered("x") == ["x"]
