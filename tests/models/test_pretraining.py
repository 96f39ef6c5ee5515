"""Pretraining: reproducible to the byte, in the format of the tests, and it learns."""

import json
from pathlib import Path

import pytest
import torch

from kd.data.micro import generate
from kd.data.prompts import build_prompt
from kd.errors import DataError, TrainingError
from kd.experiment.models import MicroModel
from kd.models.architectures import Vocabulary, build_model
from kd.models.corpus import Corpus, quote
from kd.models.encoding import encode_prompt
from kd.models.loading import load_model
from kd.models.pretraining import new_state, pretrain, train_step
from kd.models.tokenizers import train_tokenizer

ROWS = {world: generate(world, "pretraining", 40, seed=0) for world in ("squad", "dialogsum")}


def micro(architecture: str = "llama", context: int = 256, **pretraining) -> MicroModel:
    return MicroModel(
        source="micro",
        architecture=architecture,
        size="tiny",
        context=context,
        tokenizer={"algorithm": "metaspace_bpe", "vocabulary": 400},
        pretraining={"steps": 6, "batch_size": 4, "rows": 40, "shots": [0, 1]} | pretraining,
    )


def corpus_of(spec: MicroModel) -> tuple[Corpus, object]:
    texts = [
        f"{build_prompt(row, [])} {row.answers[0]}\n" for rows in ROWS.values() for row in rows
    ]
    tokenizer = train_tokenizer(spec.tokenizer, texts)
    return Corpus(spec, tokenizer, ROWS), tokenizer


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_the_same_arguments_give_the_same_bytes(tmp_path):
    for name in ("first", "second"):
        pretrain(micro(), "llama", ROWS, tmp_path / name)
        torch.rand(3)
    assert files(tmp_path / "first") == files(tmp_path / "second")


def test_the_folder_loads_and_tells_its_curve(tmp_path):
    pretrain(micro(), "llama", ROWS, tmp_path / "llama")
    curve = [json.loads(line) for line in (tmp_path / "llama/pretrain.jsonl").open()]
    model, tokenizer = load_model(tmp_path / "llama")
    assert [point["step"] for point in curve] == [1, 2, 3, 4, 5, 6]
    assert tokenizer.model_max_length == 256
    assert model.config.vocab_size == len(tokenizer)


@pytest.mark.parametrize("architecture", ["llama", "t5"])
def test_the_loss_falls(architecture):
    spec = micro(architecture, steps=60, shots=[0], learning_rate=4e-3)
    corpus, tokenizer = corpus_of(spec)
    vocabulary = Vocabulary.of(tokenizer)
    model = build_model(architecture, "tiny", vocabulary, context=256, seed=0)
    state = new_state(model, spec.pretraining)
    losses = [train_step(state, corpus.batch(step), "x") for step in range(60)]
    assert sum(losses[-5:]) < 0.75 * sum(losses[:5])


def test_a_batch_follows_from_seed_and_step_alone():
    corpus, _ = corpus_of(micro())
    later = corpus.batch(4)
    corpus.batch(1)
    assert torch.equal(corpus.batch(4).inputs, later.inputs)
    assert not torch.equal(corpus.batch(5).inputs[:, :10], later.inputs[:, :10])


def test_a_sequence_begins_as_the_prompt_of_the_tests_does():
    corpus, tokenizer = corpus_of(micro(shots=[1]))
    inputs = corpus.batch(0).inputs[1].tolist()
    prompts = [
        encode_prompt(tokenizer, build_prompt(row, [shot]), False)
        for row in ROWS["squad"]
        for shot in ROWS["squad"]
        if shot.context != row.context
    ]
    assert any(inputs[: len(prompt)] == prompt for prompt in prompts)


def test_a_decoder_learns_all_answers_of_a_context_each_with_its_end():
    corpus, tokenizer = corpus_of(micro(shots=[0]))
    batch = corpus.batch(0)
    learned = batch.targets[1][batch.weights[1] == 1].tolist()
    ends = [place for place, token in enumerate(learned) if token == tokenizer.eos_token_id]
    starts = [0, *(end + 1 for end in ends)]
    found = {tokenizer.decode(learned[a:b]).strip() for a, b in zip(starts, ends, strict=False)}
    scenes = [ROWS["squad"][start : start + 4] for start in range(0, 40, 4)]
    assert found in [{row.answers[0] for row in scene} for scene in scenes]


def test_quotes_hold_the_sentence_with_the_answer_and_another():
    for row in generate("squad", "test", 50, seed=0):
        quoted = quote(row)
        assert row.answers[0] in quoted
        assert quoted in row.context
        assert quoted.count(".") == 2


def test_a_quoting_model_learns_quotes_instead_of_answers():
    texts = {}
    for answers in ("own", "quote"):
        corpus, tokenizer = corpus_of(micro(shots=[0], answers=answers))
        batch = corpus.batch(0)
        texts[answers] = tokenizer.decode(batch.targets[0][batch.weights[0] == 1].tolist())
    assert len(texts["quote"]) > 2 * len(texts["own"])


def test_a_non_finite_loss_is_refused_with_its_step(tmp_path):
    with pytest.raises(TrainingError, match=r"'llama' diverged at step [23]"):
        pretrain(micro(learning_rate=1e30), "llama", ROWS, tmp_path / "llama")
    assert not (tmp_path / "llama").exists()


def test_a_context_too_short_for_every_row_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"'dialogsum'.*16 tokens"):
        pretrain(micro(context=16), "llama", ROWS, tmp_path / "llama")
