"""Values that stay what they were: float64, on inputs without random numbers.

Two of them were computed by hand, in plain Python. The others were taken from this code
once it had matched the other systems' own values (tests/test_golden.py), and hold without them.
"""

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor

from kd.losses import available_losses, loss_info
from tests.losses.batches import Batch, batch_for

PINNED: dict[str, list[float]] = json.loads(Path(__file__).with_suffix(".json").read_text())
BY_HAND = {"cross_entropy": 4.843826221861377, "forward_kl": 2.4488411857565415}

# What these read (hidden states, embeddings) would have to be pinned too.
UNPINNED = {
    name
    for name, info in available_losses().items()
    if info.needs_live_teacher or "embeddings" in info.setup
}


def fixed_batch(name: str) -> Batch:
    """The usual batch with waves for logits and labels of one kind."""
    batch = batch_for(name)
    for logits, wave in ((batch.student_logits, torch.sin), (batch.dense, _slow_cosine)):
        ramp = torch.arange(logits.numel(), dtype=torch.float64)
        logits.copy_((3 * wave(ramp)).view_as(logits))
    for labels in (batch.student_labels, batch.teacher_labels):
        assert labels is not None
        labels.copy_(labels.where(labels < 0, 4))
    return batch


def _slow_cosine(ramp: Tensor) -> Tensor:
    return torch.cos(ramp * ramp)


def value_and_slope(name: str) -> list[float]:
    """The loss, and its gradient along a fixed direction."""
    batch = fixed_batch(name)
    gradient = batch.gradient(name)
    direction = torch.sin(torch.arange(gradient.numel(), dtype=torch.float64) / 7)
    return [batch.loss(name).item(), (gradient.flatten() * direction).sum().item()]


def test_every_loss_is_pinned() -> None:
    assert set(PINNED) == set(available_losses()) - UNPINNED


@pytest.mark.parametrize("name", PINNED)
def test_values_stay_what_they_were(name: str) -> None:
    assert value_and_slope(name) == pytest.approx(PINNED[name], rel=1e-11, abs=1e-13)


@pytest.mark.parametrize("name", BY_HAND)
def test_pinned_values_agree_with_those_computed_by_hand(name: str) -> None:
    assert loss_info(name).name == name
    assert PINNED[name][0] == pytest.approx(BY_HAND[name], rel=1e-12)
