"""Six architectures: seeded, really different, and starting near ln(vocabulary)."""

import math

import pytest
import torch

from kd.errors import ModelError
from kd.models.architectures import ENCODER_DECODERS, SETTINGS, Vocabulary, build_model

ARCHITECTURES = sorted(SETTINGS)
VOCABULARY = Vocabulary(size=300, pad=0, eos=1, bos=None)


def build(architecture: str, seed: int = 0, context: int = 64):
    return build_model(architecture, "tiny", VOCABULARY, context=context, seed=seed)


def batch() -> torch.Tensor:
    return torch.randint(2, 300, (4, 24), generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_first_loss_is_near_that_of_guessing(architecture):
    with torch.no_grad():
        loss = build(architecture)(input_ids=batch(), labels=batch()).loss.item()
    assert abs(loss - math.log(300)) < 1.5


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_seed_decides_the_weights_whatever_ran_before(architecture):
    first = build(architecture).state_dict()
    torch.rand(7)
    again, other = build(architecture).state_dict(), build(architecture, seed=1).state_dict()
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_training_mode_draws_no_random_numbers(architecture):
    model = build(architecture).train()
    with torch.no_grad():
        first, second = (model(input_ids=batch(), labels=batch()).logits for _ in range(2))
    assert torch.equal(first, second)


@pytest.mark.parametrize("architecture", sorted(set(SETTINGS) - ENCODER_DECODERS))
def test_padding_on_the_right_changes_nothing_before_it(architecture):
    model, ids = build(architecture), batch()
    with torch.no_grad():
        short = model(input_ids=ids[:, :10]).logits
        long = model(input_ids=ids).logits[:, :10]
    assert torch.allclose(short, long, atol=1e-5)


@pytest.mark.parametrize("architecture", ["llama", "mistral", "opt", "gpt_neox"])
def test_the_context_is_declared_where_positions_set_a_limit(architecture):
    assert build(architecture, context=48).config.max_position_embeddings == 48


def test_all_architectures_are_different_classes():
    assert len({type(build(architecture)) for architecture in ARCHITECTURES}) == 6


@pytest.mark.parametrize(
    ("architecture", "size", "hint"), [("lama", "tiny", "llama"), ("opt", "smal", "small")]
)
def test_unknown_names_are_refused_with_the_nearest(architecture, size, hint):
    with pytest.raises(ModelError, match=f"'{hint}'"):
        build_model(architecture, size, VOCABULARY, context=64, seed=0)
