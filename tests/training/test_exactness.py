"""Training says how far its loss may be off for what was stored of the teacher, and can refuse."""

import math

import pytest
import torch

from kd.errors import TrainingError
from kd.experiment.methods import Method
from kd.logits import LogitReader, LogitWriter, collate, keep_top_k
from kd.losses import available_losses, fused_head
from kd.losses.bounds.report import exactness
from kd.losses.distillation import Conventions, load_loss
from kd.models.offsets import encode_answer_with_ends
from kd.resume.checkpoints import CheckpointFolder
from kd.training.batches import Collator
from tests.losses.batches import batch_for, stored


def truncated_store(folder, answers, tokenizer, **settings) -> LogitReader:
    """Teacher distributions over the students' own tokens."""
    width, generator = len(tokenizer), torch.Generator().manual_seed(5)
    with LogitWriter(folder, vocabulary=width, **settings) as writer:
        for answer in answers:
            ids, ends = map(torch.tensor, encode_answer_with_ends(tokenizer, answer.answer))
            logits = 4 * torch.randn(len(ids), width, generator=generator)
            writer.add(answer.id, ids, logits, ends=ends)
    return LogitReader(folder)


def run(made, tmp_path):
    """Train to the end; returns the records of its steps."""
    made.loop.run(CheckpointFolder(tmp_path / "checkpoints", "f"), lambda *_: None)
    return [record for record in made.loop.history if "loss" in record]


@pytest.fixture
def on_store(setup, answers, tokenizer, tmp_path):
    """Build a loop that reads a truncated store: `on_store(method, **settings)`."""

    def build(method, training=None, **settings):
        made = setup(method=method, **training or {"certificate_steps": 1})
        store = truncated_store(tmp_path / "truncated", answers, tokenizer, **settings)
        collate = Collator(tokenizer.pad_token_id, encoder_decoder=False, store=store)
        object.__setattr__(made.material, "collate", collate)
        return made

    return build


@pytest.mark.parametrize("loss", ["uld", "jensen_shannon", "skew_kl"])
def test_each_step_says_by_how_much_its_loss_may_be_off(on_store, tmp_path, loss):
    made = on_store(Method(loss=loss), epsilon=1e-2)
    steps = run(made, tmp_path)
    assert len(steps) == made.loop.total_steps
    for record in steps:
        assert 0 < record["logit_error_mean"] <= record["logit_error_max"] < 0.2
    assert len({record["logit_error_mean"] for record in steps}) > 1
    assert not any("error" in key for record in made.loop.history for key in record if "val" in key)


def test_it_is_said_every_so_many_steps_from_the_first_on(on_store, tmp_path):
    steps = run(on_store(Method(loss="uld"), {"certificate_steps": 4}, epsilon=1e-2), tmp_path)
    assert len(steps) > 5
    said = [record["step"] for record in steps if "logit_error_mean" in record]
    assert said == list(range(1, len(steps) + 1, 4))


@pytest.mark.parametrize("loss", ["uld", "jensen_shannon", "forward_kl"])
def test_it_is_the_same_where_the_students_logits_never_exist_as_a_whole(
    on_store, monkeypatch, loss
):
    monkeypatch.setattr(fused_head, "HEAD_ROWS", 3)
    made = on_store(Method(loss=loss, reduction="sequence"), epsilon=1e-2)
    batch = made.material.collate(made.material.train[:4])
    plain = made.objective(made.model, batch, certify=True).exactness
    made.objective._fused = True
    terms = made.objective(made.model, batch, certify=True)
    assert plain and terms.exactness == pytest.approx(plain, rel=1e-4)
    assert not made.objective(made.model, batch).exactness
    made.objective._max_logit_error = plain["logit_error_mean"] / 2
    with pytest.raises(TrainingError, match="may be off by"):
        made.objective(made.model, batch)


def test_drawn_tokens_have_their_deviation_there_too(on_store):
    made = on_store(Method(loss="forward_kl"), draws=30)
    batch = made.material.collate(made.material.train[:4])
    plain = made.objective(made.model, batch, certify=True).exactness
    made.objective._fused = True
    assert made.objective(made.model, batch, certify=True).exactness == pytest.approx(plain)


def test_a_loss_without_a_bound_says_nothing(on_store, tmp_path):
    (record, *_) = run(on_store(Method(loss="reverse_kl"), epsilon=1e-2), tmp_path)
    assert not any(key.startswith("logit_error") for key in record)


def test_on_drawn_tokens_the_deviation_is_said_instead(on_store, tmp_path):
    (record, *_) = run(on_store(Method(loss="forward_kl"), draws=30), tmp_path)
    assert record["logit_error_std"] > 0 and "logit_error_mean" not in record


def test_a_batch_that_is_too_uncertain_ends_the_training(on_store, tmp_path):
    made = on_store(Method(loss="uld"), epsilon=0.2)
    object.__setattr__(made.loop._training, "certificate_steps", 1000)  # a limit looks always
    made.objective._max_logit_error = 1e-3
    with pytest.raises(TrainingError, match=r"'uld' may be off by .*'max_logit_error' is 0.001"):
        run(made, tmp_path)
    made = on_store(Method(loss="uld"), epsilon=1e-4)
    made.objective._max_logit_error = 1e-3
    assert run(made, tmp_path)


def test_infinite_bounds_are_counted():
    student = torch.tensor([[[0.0, -math.inf, -math.inf], [0.0, 0.0, 0.0]]])
    teacher = torch.tensor([[0.9, 0.06, 0.04], [0.9, 0.06, 0.04]]).log()
    none = torch.zeros(2, dtype=torch.int64)
    kept = keep_top_k("row", none, teacher, ends=none, epsilon=0.2, cap=None)
    loss = load_loss("forward_kl", Conventions(shift=False))
    found = exactness(loss, {}, loss.align(student, collate([kept]), none[None]))
    assert found["logit_error_infinite"] == 1 and found["logit_error_mean"] == math.inf
    found = exactness(loss, {}, loss.align(student[:, 1:], collate([kept]), none[None, 1:]))
    assert "logit_error_infinite" not in found


@pytest.mark.parametrize(
    "name", [name for name, info in available_losses().items() if info.bound is not None]
)
@pytest.mark.parametrize("reduction", ["token", "sequence"])
def test_the_mean_bounds_the_loss_of_the_batch_as_its_reduction_has_it(name, reduction):
    batch = batch_for(name)
    truncated = stored(batch, epsilon=0.05)
    loss = load_loss(name, Conventions(reduction=reduction), setup=batch.setup)
    found = exactness(loss, {}, loss.align(*truncated.tensors, truncated.extras))
    dense = loss(*batch.tensors, extras=batch.extras)
    value = loss(*truncated.tensors, extras=truncated.extras)
    assert (value - dense).abs().item() <= found["logit_error_mean"] + 1e-6
    assert 0 < found["logit_error_mean"] <= found["logit_error_max"] < math.inf
