"""Hidden states: the metrics by hand, the projection, the choice of layers."""

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from kd.alignment import AnswerTokens, truncate
from kd.errors import LossError
from kd.losses.answers import find_answers
from kd.losses.features import AlignedFeatures, Features, ModelFeatures, at_depth
from kd.losses.hidden_state import HiddenState
from kd.losses.projections import logit_projection, random_projection
from kd.losses.setup import Models, ModelSide
from tests.losses.batches import cross_tokenizer


def at_one_position(student: list[list[float]], teacher: list[list[float]]) -> AlignedFeatures:
    """One sequence of one token; a list of states, one for each layer, on either side."""
    answers = find_answers(torch.tensor([[0]]), shift=False)
    tokens = AnswerTokens(answers.lengths)
    sides = (
        ModelFeatures(tuple(torch.tensor([[state]], dtype=torch.float64) for state in states))
        for states in (student, teacher)
    )
    return AlignedFeatures(Features(*sides), answers, answers, truncate(tokens, tokens))


def hidden_state(student: int, teacher: int, **options: object) -> HiddenState:
    sides = (ModelSide((size,), torch.zeros(2, size)) for size in (student, teacher))
    return HiddenState(Models(*sides), **options).double()  # type: ignore[arg-type]


def test_cosine_and_mse_are_what_they_are_defined_as() -> None:
    features = at_one_position([[1.0, 2.0]], [[3.0, 0.0, 4.0]])
    projection = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])  # W s = [1, 2, 3]
    expected = {
        "cosine": 1 - (3 + 12) / (math.sqrt(14) * 5),
        "mse": ((1 - 3) ** 2 + 2**2 + (3 - 4) ** 2) / 3,
    }
    for metric, value in expected.items():
        loss = hidden_state(2, 3, metric=metric)
        loss.projections[0].data.copy_(projection)
        assert loss(features).item() == pytest.approx(value, rel=1e-12)


def test_identical_states_under_the_identity_have_no_loss_and_no_gradient() -> None:
    for metric in ("cosine", "mse"):
        loss = hidden_state(3, 3, metric=metric)
        loss.projections[0].data.copy_(torch.eye(3))
        states = torch.randn(1, 1, 3, dtype=torch.float64, requires_grad=True)
        features = at_one_position([[0.0] * 3], [[0.0] * 3])
        side = ModelFeatures((states,))
        value = loss(replace(features, features=Features(side, side)))
        value.sum().backward()
        assert value.item() == pytest.approx(0.0, abs=1e-15)
        assert states.grad is not None and states.grad.abs().max() < 1e-15


def test_cosine_is_blind_to_lengths_and_survives_a_state_of_zeros() -> None:
    loss = hidden_state(2, 2)
    values = [
        loss(at_one_position([[scale, 2 * scale]], [[3.0, 1.0]])).item() for scale in (1.0, 9.0)
    ]
    assert values[0] == pytest.approx(values[1], rel=1e-12)
    assert loss(at_one_position([[0.0, 0.0]], [[3.0, 1.0]])).item() == 1.0


def test_layers_are_shares_of_either_depth_and_are_averaged() -> None:
    """5 layers of the student and 3 of the teacher: half the depth is the third and second."""
    student = [[float(n), 1.0] for n in range(5)]
    teacher = [[1.0, float(n)] for n in range(3)]
    loss = hidden_state(2, 2, metric="mse", layers=[0.5, 1.0])
    parts = []
    for number, (own, other) in enumerate(((2, 1), (4, 2))):
        single = hidden_state(2, 2, metric="mse")
        single.projections[0].data.copy_(loss.projections[number].data)
        parts.append(single(at_one_position([student[own]], [teacher[other]])))
    together = loss(at_one_position(student, teacher))
    torch.testing.assert_close(together, (parts[0] + parts[1]) / 2)


def test_paired_positions_are_those_that_predict() -> None:
    """With a shift, the states one position before each pair's tokens."""
    batch = cross_tokenizer()
    features = batch.extras.features
    assert features is not None and batch.teacher_labels is not None
    answers = [
        find_answers(side, shift=True) for side in (batch.student_labels, batch.teacher_labels)
    ]
    pairs = truncate(*(AnswerTokens(side.lengths) for side in answers))
    student, teacher = AlignedFeatures(features, *answers, pairs).hidden(1.0)
    own, other = features.student.hidden[-1], features.teacher.hidden[-1]
    expected = [own[0, 1:4], own[1, 2:4]], [other[0, 3:6], other[1, 1:3]]
    assert torch.equal(student, torch.cat(expected[0]))
    assert torch.equal(teacher, torch.cat(expected[1]))


def test_the_seed_decides_the_projection() -> None:
    first, again, other = (hidden_state(3, 5, seed=seed).projections[0] for seed in (1, 1, 2))
    assert torch.equal(first, again) and not torch.equal(first, other)


@settings(max_examples=50)
@given(st.integers(1, 6), st.integers(1, 6), st.integers(0, 9))
def test_a_random_projection_is_orthogonal(rows: int, columns: int, seed: int) -> None:
    matrix = random_projection(rows, columns, torch.Generator().manual_seed(seed)).detach()
    square = matrix @ matrix.T if rows <= columns else matrix.T @ matrix
    torch.testing.assert_close(square, torch.eye(len(square)), rtol=0, atol=1e-5)


def test_a_logit_projection_keeps_logits_where_that_is_possible() -> None:
    torch.manual_seed(0)
    goal, hidden = torch.randn(9, 4), torch.randn(3)
    source = goal @ torch.randn(4, 3)  # its logits lie in the reach of the goal's
    projection = logit_projection(goal, source).detach()
    torch.testing.assert_close(goal @ (projection @ hidden), source @ hidden, rtol=0, atol=1e-4)
    nothing = logit_projection(goal[:0], source[:0])
    assert torch.equal(nothing, torch.zeros(4, 3))


def test_undefined_options_are_refused() -> None:
    with pytest.raises(LossError, match="metric 'cosin'"):
        hidden_state(2, 2, metric="cosin")
    with pytest.raises(LossError, match="layers"):
        hidden_state(2, 2, layers=[])
    with pytest.raises(LossError, match="layer is 2"):
        hidden_state(2, 2, layers=[2.0])(at_one_position([[0.0, 0.0]], [[0.0, 0.0]]))


@pytest.mark.parametrize("layers", [(), (None, None)])
def test_a_model_that_returned_nothing_is_named(layers: tuple[Tensor, ...]) -> None:
    with pytest.raises(LossError, match=r"reads attentions.*eager"):
        at_depth("attentions", layers, 1.0)
