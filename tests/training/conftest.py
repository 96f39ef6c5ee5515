"""A tiny decoder and a tiny encoder-decoder, answers, and their stored teacher logits."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from kd.data.rows import Row
from kd.experiment.methods import Method, OnPolicy
from kd.experiment.models import TokenizerSpec
from kd.experiment.requirements import reads_logits, runs_teacher
from kd.experiment.schema import Training
from kd.logits import LogitReader, LogitWriter
from kd.losses.catalogue import loss_info
from kd.models.architectures import Vocabulary, build_model
from kd.models.offsets import encode_answer_with_ends
from kd.models.tokenizers import train_tokenizer
from kd.teacher.answers import Answer
from kd.training.batches import Collator
from kd.training.examples import build_examples
from kd.training.live import LiveTeacher
from kd.training.loop import Loop, Material
from kd.training.objective import LiveCollator, Objective
from kd.training.responses import build_policy
from kd.training.sampling import Sampler
from kd.training.setup import build_setup

WORDS = "red blue green white black grey pink gold".split()


@pytest.fixture(scope="session")
def tokenizer() -> PreTrainedTokenizerBase:
    texts = [f"Context: the {word} cat\nQuestion: which cat\nAnswer: {word}\n" for word in WORDS]
    tokenizer = train_tokenizer(TokenizerSpec(algorithm="byte_bpe", vocabulary=320), texts)
    tokenizer.model_max_length = 128
    return tokenizer


@pytest.fixture(scope="session")
def rows() -> list[Row]:
    return [
        Row(id=f"r{i}", task="qa", context=f"the {word} cat", question="which cat", answers=[word])
        for i, word in enumerate(WORDS)
    ]


@pytest.fixture(scope="session")
def answers(rows: list[Row]) -> list[Answer]:
    words = [row.answers[0] + (" cat" if i % 2 else "") for i, row in enumerate(rows)]
    return [
        Answer(row.id, "train", "prompt", text, "eos")
        for row, text in zip(rows, words, strict=True)
    ]


@pytest.fixture(scope="session")
def store(tmp_path_factory, answers, tokenizer) -> LogitReader:
    """Random teacher distributions over a vocabulary of another size."""
    folder = tmp_path_factory.mktemp("logits") / "store"
    generator = torch.Generator().manual_seed(5)
    with LogitWriter(folder, vocabulary=50, epsilon=0.0) as writer:
        for answer in answers:
            ids, ends = map(torch.tensor, encode_answer_with_ends(tokenizer, answer.answer))
            logits = torch.randn(len(ids), 50, generator=generator)
            writer.add(answer.id, ids % 50, logits, ends=ends)
    return LogitReader(folder)


@pytest.fixture(scope="session")
def teacher_folder(tmp_path_factory, tokenizer) -> Path:
    """A tiny teacher with the students' own tokenizer."""
    folder = tmp_path_factory.mktemp("teacher")
    model = build_model("llama", "tiny", Vocabulary.of(tokenizer), context=128, seed=9)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@dataclass
class Setup:
    model: PreTrainedModel
    objective: Objective
    material: Material
    loop: Loop


@pytest.fixture
def setup(rows, answers, tokenizer, store, teacher_folder) -> Callable[..., Setup]:
    """Build a loop: `setup(architecture=..., method=..., **training)`."""

    def build(
        architecture: str = "llama", method: Method | None = None, **training: object
    ) -> Setup:
        model = build_model(architecture, "tiny", Vocabulary.of(tokenizer), context=128, seed=1)
        encoder_decoder = bool(model.config.is_encoder_decoder)
        found = build_examples(
            {row.id: row for row in rows},
            answers,
            tokenizer,
            encoder_decoder=encoder_decoder,
            max_length=128,
        )
        method = method or Method(loss="uld", weight=1.5, reduction="sequence")
        live = None
        if runs_teacher(method):
            prompts = {answer.id: answer.prompt for answer in answers}
            live = LiveTeacher(teacher_folder, prompts, tokenizer)
        objective = Objective(
            method,
            eos_token_id=tokenizer.eos_token_id,
            shift=not encoder_decoder,
            setup=None
            if method.loss == "none"
            else build_setup(loss_info(method.loss), model, tokenizer, live, 6),
            live=live,
        )
        needs = store if reads_logits(method) else None
        collate = Collator(tokenizer.pad_token_id, encoder_decoder=encoder_decoder, store=needs)
        if live is not None:
            collate = LiveCollator(collate, live)
        material = Material(found.examples[:6], found.examples[6:], collate)
        policy = None
        if isinstance(method.responses, OnPolicy):
            sampler = Sampler(tokenizer, method.responses, exact=True, seed=3)
            policy = build_policy(method.responses, sampler, 6, seed=3)
        settings = {"learning_rate": 1e-3, "batch_size": 4, "epochs": 3, "checkpoint_steps": 2}
        loop = Loop(
            model,
            objective,
            material,
            training=Training(**(settings | training)),  # type: ignore[arg-type]
            seed=3,
            policy=policy,
        )
        return Setup(model, objective, material, loop)

    return build


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "checkpoints"
