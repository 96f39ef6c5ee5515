"""The commands of a student with adapters, and of one that two processes train."""

import json
import signal

import pytest

from kd.experiment.methods import Lora, Method
from kd.experiment.schema import Generation, Training
from kd.experiment.stages import DistillSpec, PredictSpec
from kd.interruption import EXIT_STATUS
from tests.resume.processes import Command, stop, wait_until

pytestmark = pytest.mark.slow


def distill(chain, out, checkpoints, method, **training):
    settings = Training(learning_rate=1e-3, epochs=2, batch_size=6, checkpoint_steps=5, **training)
    spec = DistillSpec(dataset="squad", method=method, training=settings, fraction=100, seed=1)
    words = ["--student", str(chain.model("mistral")), "--data", str(chain.data)]
    words += ["--answers", str(chain.answers), "--logits", str(chain.answers.with_name("logits"))]
    words += ["--out", str(out), "--checkpoints", str(checkpoints)]
    return Command(["distill", "--spec", spec.model_dump_json(), *words], out.with_suffix(".log"))


def curve(out):
    return [json.loads(line) for line in (out / "train.jsonl").read_text().splitlines()]


def test_two_processes_are_started_by_the_command_and_train_as_one(chain, tmp_path):
    """Here in float32, where the steps of Adam enlarge what rounding leaves."""
    method = Method(loss="uld")
    distill(chain, tmp_path / "one", tmp_path / "c1", method).finish()
    command = distill(chain, tmp_path / "two", tmp_path / "c2", method, processes=2)
    process = command.start(KD_CHECKPOINT_SECONDS="0.01")
    wait_until(lambda: list((tmp_path / "c2").glob("*/step-*")), process)
    stop(process, signal.SIGTERM)
    assert process.exitcode == EXIT_STATUS, command.said()
    assert list((tmp_path / "c2").glob("*/step-*")), "nothing was kept"
    command.finish()
    assert not (tmp_path / "c2").exists()
    one, two = curve(tmp_path / "one"), curve(tmp_path / "two")
    assert len(one) == len(two)
    for alone, shared in zip(one, two, strict=True):
        assert shared == pytest.approx(alone, rel=2e-3, abs=1e-4)
    manifest = json.loads((tmp_path / "two" / "distill.manifest.json").read_text())
    assert manifest["hashed"]["spec"]["training"]["processes"] == 2


def test_kept_adapters_answer_with_their_base_and_not_without(chain, tmp_path):
    method = Method(loss="uld", lora=Lora(rank=4, merge=False))
    distill(chain, tmp_path / "run", tmp_path / "c", method).finish()
    assert (tmp_path / "run/model/adapter_model.safetensors").is_file()
    generation = Generation(max_new_tokens=6, batch_size=4)
    spec = PredictSpec(dataset="squad", shots=0, seed=0, generation=generation)
    words = ["predict", "--spec", spec.model_dump_json(), "--model", str(tmp_path / "run/model")]
    words += ["--data", str(chain.data), "--out", str(tmp_path / "run/eval/p.parquet")]
    refused = Command(words, tmp_path / "refused.log")
    process = refused.start()
    process.join(120)
    assert process.exitcode == 2
    assert "--base FOLDER" in refused.said()
    Command([*words, "--base", str(chain.model("mistral"))], tmp_path / "predict.log").finish()
    manifest = json.loads((tmp_path / "run/eval/predict.manifest.json").read_text())
    made = json.loads((tmp_path / "run/distill.manifest.json").read_text())
    base = manifest["hashed"]["inputs"]["base"]
    assert base["sha256"] == made["hashed"]["inputs"]["student"]["sha256"]
