"""Real processes, stopped by SIGTERM, killed, let alone: the bytes of an undisturbed run."""

import json
import shutil
import signal
from pathlib import Path

import pytest

from kd.experiment.methods import AdaptiveText, Method
from kd.experiment.schema import Generation, Training
from kd.experiment.stages import AnswerSpec, DistillSpec, PredictSpec
from kd.interruption import EXIT_STATUS
from kd.resume.finished import SWITCH
from tests.resume.conftest import Chain, pretrain_spec
from tests.resume.processes import Command, stop, wait_until

pytestmark = pytest.mark.slow
OFTEN = {"KD_CHECKPOINT_SECONDS": "0.01"}
METHODS = {
    "uld": Method(loss="uld", weight=1.5, reduction="sequence"),
    "taid": Method(loss="taid"),
    "adaptive": Method(
        loss="skew_kl",
        responses=AdaptiveText(policy="adaptive", share=0.6, max_new_tokens=5, capacity=6),
    ),
}


def stages(name: str, chain: Chain, out: Path, checkpoints: Path) -> Command:
    """The command of the stage `name` that writes into the folder `out`."""
    data = ["--data", str(chain.data)]
    kept = ["--checkpoints", str(checkpoints)]
    generation = Generation(max_new_tokens=8, batch_size=2)
    if name == "pretrain":
        spec = pretrain_spec("llama", "llama", 60)
        words = ["--data", str(chain.data.parent), "--out", str(out)]
    elif name == "answer":
        spec = AnswerSpec(dataset="squad", shots=1, seed=0, generation=generation)
        words = ["--model", str(chain.model("llama")), *data, "--out", str(out / "answers.parquet")]
    elif name == "predict":
        spec = PredictSpec(dataset="squad", shots=0, seed=0, generation=generation)
        out_file = str(out / "predictions.parquet")
        words = ["--model", str(chain.model("mistral")), *data, "--out", out_file]
    else:
        training = Training(learning_rate=1e-3, epochs=8, batch_size=4, checkpoint_steps=1000)
        spec = DistillSpec(
            dataset="squad", method=METHODS[name], training=training, fraction=100, seed=1
        )
        words = ["--student", str(chain.model("mistral")), *data, "--answers", str(chain.answers)]
        words += ["--out", str(out), "--logits", str(chain.answers.with_name("logits"))]
        if name == "adaptive":
            words += ["--teacher", str(chain.model("llama"))]
    stage = "distill" if name in METHODS else name
    arguments = [stage, "--spec", spec.model_dump_json(), *words, *kept]
    return Command(arguments, out.with_suffix(".log"))


def progress_in(checkpoints: Path) -> int:
    """Steps or batches kept so far."""
    steps = [int(path.name.removeprefix("step-")) for path in checkpoints.glob("*/step-*")]
    batches = [len(path.read_bytes().splitlines()) for path in checkpoints.glob("*/journal.jsonl")]
    return max([0, *steps, *batches])


def content(folder: Path) -> dict[str, bytes]:
    """Bytes of all outputs; of manifests the part that is hashed."""
    files = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*")}
    found = {name: path.read_bytes() for name, path in files.items() if path.is_file()}
    return {
        name: json.dumps(json.loads(text)["hashed"], sort_keys=True).encode()
        if name.endswith("manifest.json")
        else text
        for name, text in found.items()
    }


@pytest.mark.parametrize("name", [*METHODS, "pretrain", "answer", "predict"])
def test_a_stopped_and_killed_stage_ends_in_the_same_bytes(chain, tmp_path, name):
    stages(name, chain, tmp_path / "whole", tmp_path / "nowhere").finish()
    checkpoints = tmp_path / "checkpoints"
    command = stages(name, chain, tmp_path / "out", checkpoints)

    process = command.start(**OFTEN)
    wait_until(lambda: progress_in(checkpoints) >= 2, process)
    seconds = stop(process, signal.SIGTERM)
    assert process.exitcode == EXIT_STATUS, command.said()
    assert seconds < 5
    assert "kd: interrupted: " in command.said()
    assert "The same command goes on" in command.said()
    kept = progress_in(checkpoints)

    process = command.start(**OFTEN)
    wait_until(lambda: progress_in(checkpoints) >= kept + 2, process)
    stop(process, signal.SIGKILL)
    assert process.exitcode == -signal.SIGKILL
    assert progress_in(checkpoints) >= kept + 2

    command.finish(**OFTEN)
    assert content(tmp_path / "out") == content(tmp_path / "whole")
    assert not checkpoints.exists(), "all that was kept goes with success"
    assert not list(tmp_path.rglob(".*")), "locks and half-written files"


@pytest.mark.parametrize("name", ["taid", "pretrain", "answer", "predict"])
def test_work_that_ended_unnoticed_is_not_done_again(chain, tmp_path, name):
    """Snakemake, killed before it noted a job's end, deletes what the job made, and starts it."""
    out = tmp_path / "out"
    command = stages(name, chain, out, tmp_path / "checkpoints")
    command.finish(**{SWITCH: "1"})
    made = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    shutil.rmtree(out)
    command.finish(**{SWITCH: "1"})
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == made
    assert command.said().count("to do") == 1, "the second must not work"


def test_sigterm_keeps_the_step_in_hand_without_any_interval(chain, tmp_path):
    checkpoints = tmp_path / "checkpoints"
    command = stages("uld", chain, tmp_path / "out", checkpoints)
    process = command.start()
    wait_until(lambda: "steps to do" in command.said(), process)
    stop(process, signal.SIGTERM)
    assert process.exitcode == EXIT_STATUS
    assert "The state after step" in command.said()
    assert progress_in(checkpoints) >= 1


def test_sigterm_before_the_first_step_leaves_nothing(chain, tmp_path):
    command = stages("uld", chain, tmp_path / "out", tmp_path / "checkpoints")
    process = command.start()
    wait_until(lambda: list(tmp_path.glob(".*.lock")), process)
    stop(process, signal.SIGTERM)
    assert process.exitcode == EXIT_STATUS, command.said()
    assert not list(tmp_path.rglob(".*"))


def test_a_second_process_waits_and_takes_what_the_first_made(chain, tmp_path):
    command = stages("uld", chain, tmp_path / "out", tmp_path / "checkpoints")
    first = command.start()
    wait_until(lambda: "steps to do" in command.said(), first)
    second = command.start()
    second.join(120)
    first.join(1)
    assert (first.exitcode, second.exitcode) == (0, 0), command.said()
    assert f"waiting for process {first.pid} on " in command.said()
    assert command.said().count("steps to do") == 1, "the second must not train again"


def test_a_changed_specification_never_goes_on(chain, tmp_path):
    checkpoints = tmp_path / "checkpoints"
    process = stages("taid", chain, tmp_path / "out", checkpoints).start(**OFTEN)
    wait_until(lambda: progress_in(checkpoints) >= 2, process)
    stop(process, signal.SIGKILL)
    command = stages("uld", chain, tmp_path / "out", checkpoints)
    command.finish()
    assert "goes on" not in command.said()
    assert progress_in(checkpoints) >= 2, "another run's state is not touched"
