"""A small chain up to the teacher's logits, whose teacher and student share a tokenizer."""

import os
from dataclasses import dataclass
from pathlib import Path

import pytest

from kd.data.sources import build_dataset
from kd.experiment.datasets import MicroDataset
from kd.experiment.models import MicroModel
from kd.experiment.schema import Generation, Logits
from kd.experiment.stages import AnswerSpec, DataSpec, ExtractSpec, PretrainSpec
from kd.models.stage import pretrain_model
from kd.teacher.answers import write_answers
from kd.teacher.extraction import extract_logits

os.environ.setdefault("OMP_NUM_THREADS", "1")  # of the process that all others are started from


def pretrain_spec(name: str, architecture: str, steps: int) -> PretrainSpec:
    model = MicroModel(
        source="micro",
        architecture=architecture,
        size="tiny",
        context=256,
        tokenizer={"algorithm": "byte_bpe", "vocabulary": 400},
        pretraining={"steps": steps, "batch_size": 4, "rows": 40},
    )
    return PretrainSpec(name=name, model=model, datasets=["squad"])


@dataclass(frozen=True)
class Chain:
    results: Path

    @property
    def data(self) -> Path:
        return self.results / "data/squad"

    def model(self, name: str) -> Path:
        return self.results / "models" / name / "model"

    @property
    def answers(self) -> Path:
        return self.results / "teachers/llama/squad/answers.parquet"


@pytest.fixture(scope="session")
def chain(tmp_path_factory) -> Chain:
    made = Chain(tmp_path_factory.mktemp("chain"))
    splits = {"train": 40, "validation": 8, "test": 12, "pretraining": 40}
    dataset = MicroDataset(source="micro", task="qa", metric="f1", splits=splits)
    build_dataset(DataSpec(name="squad", dataset=dataset, seed=0), Path("."), made.data)
    for name, architecture in (("llama", "llama"), ("mistral", "mistral")):
        spec = pretrain_spec(name, architecture, 3)
        pretrain_model(spec, made.data.parent, made.model(name).parent)
    generation = Generation(max_new_tokens=6, batch_size=4)
    spec = AnswerSpec(dataset="squad", shots=0, seed=0, generation=generation)
    write_answers(spec, made.model("llama"), made.data, made.answers)
    logits = made.answers.with_name("logits")
    extract_logits(ExtractSpec(logits=Logits()), made.model("llama"), made.answers, logits)
    return made
