"""Two Snakemakes on one target, one of them killed: a clear sentence each, and it goes on."""

import os
import signal
import subprocess
import time

import pytest

from tests.workflow.conftest import Checkout, copy_checkout

pytestmark = [pytest.mark.workflow, pytest.mark.slow, pytest.mark.xdist_group("own-checkouts")]
TARGET = "results/smoke/models/opt/model"
LONGER = "opt: {pretraining: {steps: 300"
PROFILE = ["--workflow-profile", "profiles/smoke"]


def start(checkout: Checkout) -> subprocess.Popen[bytes]:
    environment = os.environ | {"PYTHONPATH": str(checkout.path), "KD_CHECKPOINT_SECONDS": "1"}
    return subprocess.Popen(
        ["snakemake", TARGET, *PROFILE],
        cwd=checkout.path,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def test_two_on_one_target_and_a_killed_one(tmp_path):
    checkout = copy_checkout(tmp_path / "kd")
    # Long enough to be still at work when the second one has been refused.
    checkout.edit("experiments/smoke.yaml", "opt: {pretraining: {steps: 60", LONGER)
    first = start(checkout)
    deadline = time.monotonic() + 300
    while not list(checkout.path.glob("checkpoints/smoke/models/opt/*/step-*")):
        assert first.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    second = checkout.smoke(TARGET)
    assert second.returncode != 0
    assert "cannot be locked" in second.stdout and "--unlock" in second.stdout
    assert first.poll() is None, "the first goes on"

    first.send_signal(signal.SIGKILL)
    first.wait()
    assert "--unlock" in checkout.smoke(TARGET).stdout
    assert checkout.smoke(TARGET, "--unlock").returncode == 0
    done = checkout.smoke(TARGET)
    assert done.returncode == 0, done.stdout
    assert (checkout.path / TARGET / "config.json").is_file()
    said = (checkout.path / "logs/smoke/models/opt.log").read_text(encoding="utf-8")
    assert "goes on from the checkpoint" in said
    left = [*checkout.path.glob("results/**/.*.partial"), *checkout.path.glob("results/**/.*.lock")]
    assert not left and not (checkout.path / "checkpoints").exists()
