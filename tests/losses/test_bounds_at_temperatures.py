"""At high temperatures nearly everything may be dropped: what is kept, and every bound, hold."""

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from kd.logits import LogitReader, LogitWriter, collate
from kd.losses.teacher import TeacherLogits, TopKRows
from tests.losses.test_bounds import (
    CASES,
    body_of,
    bound_of,
    caps,
    epsilons,
    needs_of,
    through_the_store,
)
from tests.losses.test_truncation import distributions

VOCABULARY = 128_000
TEMPERATURES = (4.0, 8.0)
# Losses with a bound that need no vocabulary of a certain size.
ANY_WIDTH = [
    "forward_kl",
    "jensen_shannon",
    "skew_kl",
    "skew_reverse_kl",
    "top1_cross_entropy",
    "total_variation",
    "uld",
]


def one_token_ahead(gap: float) -> Tensor:
    logits = torch.zeros(1, VOCABULARY)
    logits[0, 3] = gap
    return logits


def through_files(folder: Any, logits: Tensor, **settings: Any) -> TeacherLogits:
    with LogitWriter(
        folder, vocabulary=VOCABULARY, temperatures=TEMPERATURES, **settings
    ) as writer:
        writer.add("row", torch.tensor([3]), logits, ends=torch.tensor([1]))
    return collate([LogitReader(folder)["row"]])


@pytest.mark.parametrize("precision", ["compact", "full"])
@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_one_token_of_a_large_vocabulary_keeps_its_probability(
    tmp_path: Any, precision: str, temperature: float
) -> None:
    logits = one_token_ahead(18.0)
    batch = through_files(tmp_path / "store", logits, epsilon=0.1, precision=precision)
    assert batch.log_probs.shape == (1, 1, 1)  # one token is kept
    rows = batch.all_rows().tempered(temperature)
    truth = (logits.double() / temperature).log_softmax(-1)
    assert rows.log_errors is not None and rows.log_errors.item() < 2e-3
    assert (rows.log_probs[0, 0] - truth[0, 3]).abs() <= rows.log_errors.item()
    left = 1 - truth[0, 3].exp().item()
    assert left <= rows.dropped.item() + 1e-7
    own = batch.own_log_probs(torch.tensor([0]), temperature)
    assert (own[0] - truth[0, 3]).abs() <= rows.log_errors.item()
    student = torch.zeros(1, VOCABULARY, dtype=torch.float64)
    student[0, 3] = 60.0
    sure = torch.log_softmax(student / temperature, dim=-1)
    distance = (sure.exp() - truth.exp()).clamp(min=0).sum().item()
    found = body_of("total_variation", {})(student=sure, teacher=rows.cast(torch.float64))
    assert found.item() == pytest.approx(distance, abs=1e-4)


def test_a_dropped_mass_that_was_rounded_to_one_leaves_what_was_kept_its_least_share() -> None:
    rows = TopKRows(
        ids=torch.tensor([[4, 2]]),
        log_probs=torch.tensor([[0.6, 0.4]]).log(),
        dropped=torch.tensor([0.0]),
        vocabulary=100_000,
        dropped_at={8.0: torch.tensor([1.0])},
    )
    there = rows.tempered(8.0)
    kept = there.log_probs.double().exp().sum().item()
    assert kept == pytest.approx(2 / 100_000, rel=1e-4)


temperatures = st.sampled_from([0.25, 0.5, 3.0, 4.0, 8.0, 40.0])


@pytest.mark.parametrize(("name", "options"), CASES)
@given(
    case=distributions(), epsilon=epsilons, cap=caps, full=st.booleans(), temperature=temperatures
)
@settings(max_examples=25, deadline=None)
def test_no_distribution_violates_the_bound_at_a_temperature(
    name: str,
    options: dict[str, Any],
    case: tuple[Tensor, Tensor, int],
    epsilon: float,
    cap: int | None,
    full: bool,
    temperature: float,
) -> None:
    width = min(case[0].shape[-1], 7)
    student, teacher = (side[:, :width].repeat(2, 1) + 1e-300 for side in case[:2])
    student, teacher = (side / side.sum(-1, keepdim=True) for side in (student, teacher))
    rows = through_the_store(teacher, epsilon, cap, full, temperature).tempered(temperature)
    violates_nothing(name, options, student.log(), (teacher.log() / temperature), rows)


@pytest.mark.parametrize("name", ANY_WIDTH)
@given(
    gaps=st.lists(st.floats(0, 30), min_size=1, max_size=4),
    ahead=st.lists(st.floats(-5, 60), min_size=4, max_size=4),
    epsilon=epsilons,
    full=st.booleans(),
    temperature=temperatures,
)
@settings(max_examples=25, deadline=None)
def test_no_long_tail_violates_the_bound_at_a_temperature(
    name: str,
    gaps: list[float],
    ahead: list[float],
    epsilon: float,
    full: bool,
    temperature: float,
) -> None:
    """A few likely tokens before 20,000 others, which a temperature can give nearly all."""
    teacher, student = torch.zeros(2, 1, 20_000, dtype=torch.float64)
    teacher[0, : len(gaps)] = torch.tensor(gaps)
    student[0, :4] = torch.tensor(ahead)
    rows = through_the_store(teacher.softmax(-1), epsilon, 4, full, temperature)
    tempered = teacher / temperature
    violates_nothing(name, {}, student / temperature, tempered, rows.tempered(temperature))


def violates_nothing(
    name: str, options: dict[str, Any], student: Tensor, teacher: Tensor, rows: TopKRows
) -> None:
    body = body_of(name, options)
    dense = body(**needs_of(name, student, teacher.log_softmax(-1)))
    found = body(**needs_of(name, student, rows))
    bound = bound_of(name, student, rows, options)
    assert (bound >= 0).all()
    assert ((found - dense).abs() <= bound * (1 + 1e-6) + 1e-6).all()
