"""ULD against optimal transport as a solver knows it: which cost it is exact for, and which not."""

from itertools import permutations

import numpy as np
import ot
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.stats import wasserstein_distance

from tests.losses.batches import uld

Floats = NDArray[np.float64]


@st.composite
def two_distributions(draw: st.DrawFn, most: int = 7) -> tuple[Floats, Floats]:
    """Probabilities of teacher and student on as many tokens, with zeros and ties."""
    width = draw(st.integers(2, most))
    weight = st.one_of(st.sampled_from([0.0, 1.0]), st.floats(0.01, 10))
    sides = []
    for _ in range(2):
        weights = draw(st.lists(weight, min_size=width, max_size=width))
        weights[draw(st.integers(0, width - 1))] = draw(st.floats(0.1, 10))
        sides.append(np.array(weights) / np.sum(weights))
    return sides[0], sides[1]


def value(teacher: Floats, student: Floats) -> float:
    logits = [torch.from_numpy(side)[None].log() for side in (student, teacher)]
    return uld(*logits).item()


def ranked(probs: Floats) -> Floats:
    return np.sort(probs)[::-1].copy()


def discrete(width: int) -> Floats:
    return 1 - np.eye(width)


@given(two_distributions())
@settings(max_examples=50)
def test_uld_is_twice_the_transport_cost_between_different_ranks(
    pair: tuple[Floats, Floats],
) -> None:
    cost = ot.emd2(*map(ranked, pair), discrete(len(pair[0])))
    assert value(*pair) == pytest.approx(2 * cost, abs=1e-12)


@given(two_distributions())
@settings(max_examples=50)
def test_uld_is_v_times_the_distance_of_both_lists_of_values_on_the_line(
    pair: tuple[Floats, Floats],
) -> None:
    width = len(pair[0])
    assert value(*pair) == pytest.approx(width * wasserstein_distance(*pair), abs=1e-12)
    assert value(*pair) == pytest.approx(width * ot.emd2_1d(*pair, metric="cityblock"), abs=1e-12)


@given(two_distributions(most=5))
@settings(max_examples=25)
def test_of_all_ways_to_identify_tokens_ranks_cost_least(pair: tuple[Floats, Floats]) -> None:
    """Identified as they stand, tokens cost half the L1 distance, and that is never less."""
    teacher, student = pair
    costs = discrete(len(teacher))
    fixed = ot.emd2(teacher, student, costs)
    assert fixed == pytest.approx(np.abs(teacher - student).sum() / 2, abs=1e-12)
    assert 2 * fixed >= value(*pair) - 1e-12
    least = min(ot.emd2(teacher, np.array(other), costs) for other in permutations(student))
    assert 2 * least == pytest.approx(value(*pair), abs=1e-12)


@given(two_distributions())
@settings(max_examples=25)
def test_a_literally_uniform_cost_would_always_be_one(pair: tuple[Floats, Floats]) -> None:
    width = len(pair[0])
    assert ot.emd2(*pair, np.ones((width, width))) == pytest.approx(1.0, abs=1e-12)


def test_distance_of_ranks_is_another_cost() -> None:
    """It is the sum of differences of distribution functions: 0.3 + 0.1, and not 0.6."""
    teacher, student = np.array([0.4, 0.4, 0.2]), np.array([0.7, 0.2, 0.1])
    ranks = np.arange(3.0)
    cost = ot.emd2(teacher, student, np.abs(ranks[:, None] - ranks))
    assert cost == pytest.approx(0.4, abs=1e-12)
    assert value(teacher, student) == pytest.approx(0.6, abs=1e-12)
