"""What is hashed of the environment does not depend on what happens to be loaded."""

import json
import subprocess
import sys

import torch

from kd.evaluation.predictions import Prediction, write_predictions
from kd.evaluation.score import score
from kd.experiment.schema import Evaluation
from kd.experiment.stages import PredictSpec, ScoreSpec
from kd.provenance.environment import numerics
from kd.provenance.manifest import StageRecord, read_manifest


def test_torch_counts_where_it_computes_and_nowhere_else():
    assert "torch" in sys.modules
    assert numerics(tensors=False)["cpu_capability"] is None
    assert numerics(tensors=False)["threads"] == 1
    assert numerics(tensors=True)["cpu_capability"] == torch.backends.cpu.get_cpu_capability()
    code = "import json; from kd.provenance.environment import numerics as n; print(json.dumps(["
    code += "n(tensors=False), n(tensors=True)]))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    alone, loading = json.loads(done.stdout)
    assert alone == numerics(tensors=False), "a process in which torch was never loaded"
    assert loading["cpu_capability"] == numerics(tensors=True)["cpu_capability"]


def test_scores_without_an_encoder_are_those_of_a_process_without_torch(tmp_path):
    """A worker has torch loaded, a command by itself has not: one identity."""
    predictions = tmp_path / "predictions.parquet"
    row = Prediction(
        id="a",
        prompt_sha256="0" * 64,
        prediction="two words",
        references=["two words"],
        finish_reason="newline",
        tokens=2,
        confidence=None,
    )
    write_predictions([row], predictions)
    spec = PredictSpec.model_construct(dataset="squad")
    StageRecord("predict", spec, {}, ("kd.evaluation.predict",)).write(predictions)
    score(ScoreSpec(evaluation=Evaluation(metrics=["f1"])), predictions, tmp_path / "scores.json")
    found = read_manifest(tmp_path / "score.manifest.json")["hashed"]["numerics"]
    assert found["cpu_capability"] is None and found["threads"] == 1
