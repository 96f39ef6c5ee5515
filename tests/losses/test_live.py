"""Losses on what only a running teacher has: the conventions that they share with all others."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from kd.errors import LossError
from kd.losses import Conventions, available_losses, load_loss
from kd.losses.features import Features, ModelFeatures
from tests.losses.batches import IGNORED, Batch, cross_tokenizer, stored

LIVE = [name for name, info in available_losses().items() if info.needs_live_teacher]


def with_leaves(batch: Batch) -> tuple[Batch, list[Tensor], list[Tensor]]:
    """The batch with new features, and those of the student and of the teacher."""
    features = batch.extras.features
    assert features is not None
    sides = [
        ModelFeatures(*(tuple(t.clone().requires_grad_() for t in part) for part in parts))
        for parts in (
            (side.hidden, side.attentions) for side in (features.student, features.teacher)
        )
    ]
    batch = replace(batch, extras=replace(batch.extras, features=Features(*sides)))
    return batch, *([*side.hidden, *side.attentions] for side in sides)


@pytest.mark.parametrize("name", LIVE)
def test_the_gradient_reaches_the_student_and_the_loss_but_not_the_teacher(name: str) -> None:
    batch, student, teacher = with_leaves(cross_tokenizer())
    assert batch.setup.models is not None
    sides = batch.setup.models.student, batch.setup.models.teacher
    outputs = [side.output.requires_grad_() for side in sides]
    logits = batch.dense.clone().requires_grad_()
    loss = load_loss(name, setup=batch.setup)
    loss(*replace(batch, teacher_logits=logits).tensors, extras=batch.extras).backward()
    assert any(leaf.grad is not None and leaf.grad.any() for leaf in student)
    assert all(parameter.grad.any() for parameter in loss.parameters())
    assert all(leaf.grad is None for leaf in (*teacher, *outputs, logits))
    assert all(parameter is not output for parameter in loss.parameters() for output in outputs)


@pytest.mark.parametrize("name", LIVE)
def test_the_gradient_is_right(name: str) -> None:
    """In the student; what trains the loss's own weights is not always the whole value."""
    batch, leaves, _ = with_leaves(cross_tokenizer())
    loss = load_loss(name, setup=batch.setup).double()

    def value(*_: Tensor) -> Tensor:
        return loss(*batch.tensors, extras=batch.extras)

    logits = batch.student_logits.requires_grad_()
    assert torch.autograd.gradcheck(value, (logits, *leaves))


@pytest.mark.parametrize("name", LIVE)
def test_prompt_and_padding_get_no_gradient(name: str) -> None:
    batch, leaves, _ = with_leaves(cross_tokenizer())
    batch.loss(name).backward()
    silent = torch.ones(2, 8, dtype=torch.bool)
    silent[:, :-1] = batch.student_labels[:, 1:] == IGNORED
    for leaf in (leaf for leaf in leaves if leaf.grad is not None):
        gradient = leaf.grad if leaf.ndim == 3 else leaf.grad.transpose(1, 2)
        assert not gradient[silent].any()


@pytest.mark.parametrize("name", LIVE)
@pytest.mark.parametrize("reduction", ["token", "sequence"])
def test_micro_batches_add_up_to_the_batch(name: str, reduction: str) -> None:
    batch = cross_tokenizer()
    parts = [batch.sequence(b) for b in (0, 1)]
    loss = load_loss(name, Conventions(reduction=reduction), setup=batch.setup)
    normalizer = sum(loss.count(*part.tensors, extras=part.extras) for part in parts)
    settings = {"reduction": reduction, "normalizer": normalizer}
    total = sum(part.loss(name, **settings) for part in parts)
    torch.testing.assert_close(total, batch.loss(name, reduction=reduction))


@pytest.mark.parametrize("name", LIVE)
def test_a_batch_of_nothing_gives_zero(name: str) -> None:
    batch = cross_tokenizer()
    masked = replace(batch, student_labels=torch.full_like(batch.student_labels, IGNORED))
    assert masked.loss(name).item() == 0.0


@pytest.mark.parametrize("name", LIVE)
def test_loading_leaves_the_global_random_state_alone(name: str) -> None:
    batch = cross_tokenizer()
    before = torch.random.get_rng_state()
    first, second = (load_loss(name, setup=batch.setup).state_dict() for _ in range(2))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert first.keys() == second.keys()
    assert all(torch.equal(first[key], second[key]) for key in first)


@pytest.mark.parametrize("name", LIVE)
def test_half_precision_features_are_computed_in_float32(name: str) -> None:
    batch = cross_tokenizer()
    features = batch.extras.features
    assert features is not None
    low = [
        ModelFeatures(
            *(tuple(t.bfloat16() for t in part) for part in (side.hidden, side.attentions))
        )
        for side in (features.student, features.teacher)
    ]
    extras = replace(batch.extras, features=Features(*low))
    logits = {"student_logits": batch.student_logits.float(), "teacher_logits": batch.dense.float()}
    assert replace(batch, extras=extras, **logits).loss(name).dtype == torch.float32


@pytest.mark.parametrize("name", LIVE)
def test_features_and_a_running_teacher_are_demanded(name: str) -> None:
    batch = cross_tokenizer()
    with pytest.raises(LossError, match="dense logits"):
        stored(batch, epsilon=0.0).loss(name)
    with pytest.raises(LossError, match="features"):
        replace(batch, extras=replace(batch.extras, features=None)).loss(name)


@pytest.mark.parametrize("name", sorted(set(LIVE) - {"attention_transfer"}))
def test_the_output_layer_is_read_as_training_left_it(name: str) -> None:
    """An optimiser changes it in place; a copy would be stale."""
    batch = cross_tokenizer()
    assert batch.setup.models is not None
    loss = load_loss(name, setup=batch.setup)
    before = loss(*batch.tensors, extras=batch.extras)
    batch.setup.models.student.output.add_(1.0 + torch.arange(7)[:, None])
    after = loss(*batch.tensors, extras=batch.extras)
    assert (name == "hidden_state") == torch.equal(before, after)
