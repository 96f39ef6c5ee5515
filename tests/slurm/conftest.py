"""One SLURM for all tests of this folder, and copies of a finished checkout to run on it."""

import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import pytest
import yaml

from tests.slurm import single_node
from tests.workflow.conftest import ROOT, Checkout, copy_checkout

PATIENCE = 400  # seconds for anything to happen, on a busy machine
FLAGS = ("--workflow-profile", "profiles/slurm", "--nocolor")
# The real profile, but for what costs a test minutes of waiting.
FLAGS += ("--slurm-init-seconds-before-status-checks", "1", "--latency-wait", "10")
T = TypeVar("T")


def wait_for(what: str, condition: Callable[[], T], seconds: float = PATIENCE) -> T:
    """What `condition` returns, as soon as it is true."""
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, f"waited {seconds:.0f} s in vain for {what}"
        time.sleep(0.1)
    return found


def slurm(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout


def with_gpus() -> list[str]:
    """The profile's resources, and a GPU for each rule that runs a model.

    On the command line, resources replace the profile's; they do not add to them.
    """
    profile = yaml.safe_load((ROOT / "profiles/slurm/profile.yaml").read_text())
    values = [
        f"{rule}:{name}={value}"
        for rule, resources in profile["set-resources"].items()
        for name, value in ({"gpu": 1} if rule not in ("pretrain", "score") else {}).items()
        | resources.items()
    ]
    return ["--set-resources", *values]


@dataclass(frozen=True)
class Started:
    """A Snakemake in the background, with the profile, and its output in a file."""

    checkout: Checkout
    process: subprocess.Popen[bytes]
    log: Path

    def output(self) -> str:
        return self.log.read_text(encoding="utf-8")

    def finish(self) -> str:
        """Wait for success; the output."""
        assert self.process.wait(PATIENCE * 3) == 0, self.output()[-6000:]
        return self.output()


def start(checkout: Checkout, *arguments: str) -> Started:
    number = len(list(checkout.path.glob("snakemake-*.out")))
    log = checkout.path / f"snakemake-{number}.out"
    environment = os.environ | {
        "PYTHONPATH": str(checkout.path),
        "KD_DEVICE": "cpu",  # this node's GPUs are made up
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    }
    command = ["snakemake", *arguments]
    command += [] if "--unlock" in arguments else FLAGS
    with log.open("wb") as file:
        process = subprocess.Popen(
            command, cwd=checkout.path, env=environment, stdout=file, stderr=subprocess.STDOUT
        )
    return Started(checkout, process, log)


@dataclass
class Workers:
    """What the `kd` processes below a checkout do, seen by a thread of its own.

    `hold` names seeds whose training is stopped (SIGSTOP) at its first checkpoint, so that
    whatever is done to it next cannot come too late.
    """

    checkout: Checkout
    hold: frozenset[int] = frozenset()
    held: dict[int, int] = field(default_factory=dict)
    devices: set[frozenset[str]] = field(default_factory=set)
    shared: list[str] = field(default_factory=list)
    checkpoints: dict[int, list[tuple[int, int]]] = field(default_factory=dict)
    _over: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> "Workers":
        look = self._look_at_checkpoints if self.hold else self._look_at_devices
        threading.Thread(target=look, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()

    def steps(self, seed: int) -> list[int]:
        """Steps of the checkpoints that appeared, in their order."""
        return [step for step, _ in self.checkpoints[seed]]

    def _look_at_devices(self) -> None:
        while not self._over.wait(0.5):
            found = [environment_of(pid) for pid in workers_of(self.checkout)]
            used = [given.get("CUDA_VISIBLE_DEVICES", "") for given in found]
            used = [device for device in used if device]
            self.devices.add(frozenset(used))
            if len(used) > len(set(used)):
                self.shared.append(" ".join(used))

    def _look_at_checkpoints(self) -> None:
        while not self._over.wait(0.05):
            for folder in self.checkout.path.glob(f"{checkpoints_of('*')}/*/step-*"):
                try:
                    seen = (int(folder.name.removeprefix("step-")), folder.stat().st_ino)
                except OSError:  # just replaced by a newer one
                    continue
                seed = int(folder.parents[1].name.removeprefix("s"))
                known = self.checkpoints.setdefault(seed, [])
                if seen not in known:
                    known.append(seen)
                if seed in self.hold and seed not in self.held:
                    (self.held[seed],) = workers_of(self.checkout, checkpoints_of(seed))
                    os.kill(self.held[seed], signal.SIGSTOP)


def checkpoints_of(seed: int | str) -> str:
    return f"checkpoints/smoke/runs/squad/llama/opt/teacher_text/f100/s{seed}"


def workers_of(checkout: Checkout, argument: str = "") -> list[int]:
    """Processes of the `kd` command that run in a checkout, with `argument` among theirs."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            words = (folder / "cmdline").read_bytes().decode().split("\0")
            inside = (folder / "cwd").resolve() == checkout.path
        except OSError:
            continue
        is_kd = inside and len(words) > 2 and Path(words[1]).name == "kd"
        if is_kd and (not argument or argument in words):
            found.append(int(folder.name))
    return found


def environment_of(pid: int) -> dict[str, str]:
    try:
        text = Path(f"/proc/{pid}/environ").read_bytes().decode()
    except OSError:
        return {}
    return dict(line.split("=", 1) for line in text.split("\0") if "=" in line)


def copy_of(checkout: Checkout, target: Path) -> Checkout:
    shutil.copytree(checkout.path, target, symlinks=True)
    return Checkout(target.resolve())


@pytest.fixture(scope="session")
def node() -> Iterator[None]:
    """The single-node SLURM, or a skip that says why there is none."""
    if importlib.util.find_spec("snakemake_executor_plugin_slurm") is None:
        pytest.skip("Snakemake's SLURM executor is not installed (pip install -e '.[slurm]')")
    try:
        single_node.start()
    except single_node.Unavailable as error:
        pytest.skip(f"no SLURM here: {error}")
    yield
    single_node.stop()


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    """A copy in which the smoke experiment ran here, without SLURM."""
    copy = copy_checkout(tmp_path_factory.mktemp("finished") / "kd")
    done = copy.run("snakemake", "--workflow-profile", "profiles/smoke", timeout=PATIENCE * 3)
    assert done.returncode == 0, done.stdout
    return copy


@dataclass(frozen=True)
class Whole:
    """Two experiments at once in one checkout, on SLURM."""

    smoke: Started
    second: Started
    workers: Workers


SECOND = """\
extends: smoke.yaml
name: second
students: {opt: {pretraining: {steps: 10}}}
"""
SECOND_TARGET = "results/second/native/squad/opt/eval/squad/predictions.parquet"


@pytest.fixture(scope="session")
def whole(node: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Whole]:
    """The smoke experiment and a second one, started and not waited for."""
    checkout = Checkout(copy_checkout(tmp_path_factory.mktemp("whole") / "kd").path.resolve())
    (checkout.path / "experiments/second.yaml").write_text(SECOND)
    with Workers(checkout) as workers:
        smoke = start(checkout, "--config", "experiment=smoke", *with_gpus())
        second = start(checkout, SECOND_TARGET, "--config", "experiment=second", *with_gpus())
        yield Whole(smoke, second, workers)
    for started in (smoke, second):
        interrupt(started)


def interrupt(started: Started) -> None:
    """End a Snakemake that still runs; it cancels its jobs."""
    if started.process.poll() is None:
        started.process.send_signal(signal.SIGINT)
        started.process.wait(60)


LONGER = "training: {epochs: 8, checkpoint_steps: 4}"
RUN = "results/smoke/runs/squad/llama/opt/teacher_text/f100/s{seed}"
SEEDS = range(4)


@pytest.fixture(scope="session")
def longer(finished: Checkout, tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    """The finished checkout, whose students are now to be trained longer, with checkpoints."""
    copy = copy_of(finished, tmp_path_factory.mktemp("longer") / "kd")
    copy.edit("experiments/smoke.yaml", "training: {epochs: 2}", LONGER)
    return copy


@pytest.fixture(scope="session")
def undisturbed(longer: Checkout, tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    """Those students, trained here without SLURM and without an interruption."""
    copy = copy_of(longer, tmp_path_factory.mktemp("undisturbed") / "kd")
    targets = [f"{RUN.format(seed=seed)}/model" for seed in SEEDS]
    done = copy.snakemake(*targets, "--config", "experiment=smoke", "seeds=4")
    assert done.returncode == 0, done.stdout
    return copy


def assert_same_student(copy: Checkout, undisturbed: Checkout, seed: int) -> None:
    for name in ("model/model.safetensors", "train.jsonl"):
        file = f"{RUN.format(seed=seed)}/{name}"
        assert (copy.path / file).read_bytes() == (undisturbed.path / file).read_bytes(), file
