"""All stages on tiny datasets, twice, with deterministic kernels: which bytes are the same."""

import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import torch

from benchmarks.gpu.device import Figure, Limits, Machine
from kd.data.micro import TASKS
from kd.data.sources import build_dataset
from kd.evaluation.predict import predict
from kd.experiment.datasets import MicroDataset
from kd.experiment.logits import Logits
from kd.experiment.methods import Method
from kd.experiment.models import MicroModel
from kd.experiment.schema import Generation, Training
from kd.experiment.stages import (
    AnswerSpec,
    DataSpec,
    DistillSpec,
    ExtractSpec,
    PredictSpec,
    PretrainSpec,
)
from kd.models.stage import pretrain_model
from kd.provenance.manifest import path_digest
from kd.teacher.answers import write_answers
from kd.teacher.extraction import extract_logits
from kd.training.distillation import distill

SPLITS = {"train": 24, "validation": 6, "test": 6, "pretraining": 40}
GENERATION = Generation(max_new_tokens=8, batch_size=8)


def figures(machine: Machine, limits: Limits) -> Iterator[Figure]:
    if not machine.on_gpu:
        os.environ["CUDA_VISIBLE_DEVICES"] = "-1"
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True)
    try:
        with tempfile.TemporaryDirectory() as folder:
            common = Path(folder) / "common"
            names = list(TASKS)[: machine.sizes.datasets]
            _models(names, common)
            started = time.perf_counter()
            first, second = (
                {name: _chain(name, common, Path(folder) / run) for name in names}
                for run in ("first", "second")
            )
            seconds = time.perf_counter() - started
    finally:
        torch.use_deterministic_algorithms(before)
    yield Figure("chain", f"{len(names)} datasets, twice", "took", seconds, "s")
    for name in names:
        other = [stage for stage, found in first[name].items() if second[name][stage] != found]
        same = len(first[name]) - len(other)
        note = f"differ: {', '.join(other)}" if other else "every stage gave the same bytes"
        yield Figure(
            "chain", name, "stages with equal bytes", same, f"of {len(first[name])}", note=note
        )


def _models(names: list[str], root: Path) -> None:
    for name in names:
        dataset = MicroDataset(source="micro", task=TASKS[name], metric="f1", splits=SPLITS)
        build_dataset(DataSpec(name=name, dataset=dataset, seed=0), root, root / "data" / name)
    for name, architecture in (("llama", "llama"), ("opt", "opt")):
        model = MicroModel(
            source="micro",
            architecture=architecture,
            size="tiny",
            context=512,
            tokenizer={"algorithm": "byte_bpe", "vocabulary": 400},
            pretraining={"steps": 20, "batch_size": 4, "rows": 40},
        )
        spec = PretrainSpec(name=name, model=model, datasets=names)
        pretrain_model(spec, root / "data", root / "models" / name)


def _chain(name: str, common: Path, out: Path) -> dict[str, str]:
    """Digests of what the stages of one dataset write, by stage."""
    teacher, student = (common / "models" / model / "model" for model in ("llama", "opt"))
    data, place = common / "data" / name, out / name
    answers, logits = place / "answers.parquet", place / "logits"
    spec = AnswerSpec(dataset=name, shots=0, seed=0, generation=GENERATION)
    write_answers(spec, teacher, data, answers)
    extract_logits(ExtractSpec(logits=Logits()), teacher, answers, logits)
    inputs = {"student": student, "answers": answers, "logits": logits} | {
        split: data / f"{split}.parquet" for split in ("train", "validation")
    }
    training = Training(learning_rate=1e-3, epochs=2)
    method = Method(loss="uld", weight=1.5)
    run = DistillSpec(dataset=name, method=method, training=training, fraction=100, seed=0)
    distill(run, inputs, place / "run", place / "checkpoints")
    asked = PredictSpec(dataset=name, shots=0, seed=0, generation=GENERATION)
    predictions = place / "run/eval/predictions.parquet"
    predict(asked, place / "run/model", data, predictions)
    paths = {
        "answer": answers,
        "extract": logits,
        "distill": place / "run/model",
        "predict": predictions,
    }
    return {stage: path_digest(path) for stage, path in paths.items()}
