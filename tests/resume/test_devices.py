"""On a GPU, too, a stage that is done is found to be done, before any model is loaded."""

import json
from types import ModuleType

import pytest
import torch
from transformers import PreTrainedModel

from kd.data.rows import Row, write_rows
from kd.evaluation import predict as predicting
from kd.experiment.logits import Logits
from kd.experiment.models import TokenizerSpec
from kd.experiment.schema import Generation
from kd.experiment.stages import AnswerSpec, ExtractSpec, PredictSpec
from kd.models.architectures import Vocabulary, build_model
from kd.models.loading import pick_device
from kd.models.tokenizers import train_tokenizer
from kd.provenance.manifest import StageRecord
from kd.teacher import answers as answering
from kd.teacher import extraction as extracting

GENERATION = Generation(max_new_tokens=4, batch_size=4)


class MadeUpGpu:
    """What torch says of a GPU; models stay where they are."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.used = False
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(torch.cuda, "is_initialized", lambda: self.used)
        monkeypatch.setattr(torch.cuda, "init", self.use)
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda *_: "made up")
        monkeypatch.setattr(PreTrainedModel, "to", lambda model, device: self.take(model, device))

    def use(self) -> None:
        self.used = True

    def take(self, model: PreTrainedModel, device: torch.device) -> PreTrainedModel:
        self.used = self.used or torch.device(device).type == "cuda"
        return model


@pytest.fixture
def folder(tmp_path):
    texts = [f"Context: the {word} cat\nQuestion: which\nAnswer: {word}\n" for word in "abcd"]
    tokenizer = train_tokenizer(TokenizerSpec(algorithm="byte_bpe", vocabulary=300), texts)
    tokenizer.model_max_length = 128
    model = build_model("llama", "tiny", Vocabulary.of(tokenizer), context=128, seed=1)
    for part in (model, tokenizer):
        part.save_pretrained(tmp_path / "model")
    for split in ("train", "validation", "test"):
        row = Row(id=split, task="qa", context="a cat", question="which", answers=["a"])
        write_rows([row], tmp_path / f"{split}.parquet")
    paths = [tmp_path / f"{split}.parquet" for split in ("train", "validation", "test")]
    StageRecord("data", GENERATION, {}, ()).write(*paths)
    return tmp_path


def run(stage: ModuleType, folder) -> None:
    """The stage, and what it reads."""
    model, answers = folder / "model", folder / "teacher/answers.parquet"
    if stage is predicting:
        spec = PredictSpec(dataset="d", shots=0, seed=0, generation=GENERATION)
        predicting.predict(spec, model, folder, folder / "out/predictions.parquet")
        return
    spec = AnswerSpec(dataset="d", shots=0, seed=0, generation=GENERATION)
    answering.write_answers(spec, model, folder, answers)
    if stage is extracting:
        extracting.extract_logits(
            ExtractSpec(logits=Logits()), model, answers, folder / "teacher/logits"
        )


@pytest.mark.parametrize("stage", [predicting, answering, extracting])
def test_a_finished_stage_loads_no_model_on_a_gpu(folder, monkeypatch, stage):
    gpu = MadeUpGpu(monkeypatch)
    run(stage, folder)
    made = list(folder.glob("*/*.manifest.json"))
    devices = {json.loads(path.read_text())["hashed"]["numerics"]["device"] for path in made}
    assert devices == {"cuda"}
    gpu.used = False  # as another process finds it

    def refused(*given, **named):
        raise AssertionError("a model was loaded for nothing")

    for module in (predicting, answering, extracting):
        monkeypatch.setattr(module, "load_model", refused)
    run(stage, folder)


def test_the_cpu_is_used_where_it_is_meant(monkeypatch):
    gpu = MadeUpGpu(monkeypatch)
    assert pick_device().type == "cuda"
    gpu.used = False
    monkeypatch.setenv("KD_DEVICE", "cpu")
    assert pick_device().type == "cpu" and not gpu.used
