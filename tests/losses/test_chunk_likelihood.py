"""Approximate likelihood matching: its differences, its chunks, and what de-biases them."""

from dataclasses import replace
from math import exp, log

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor

from kd.errors import LossError
from kd.losses import Setup
from kd.losses.differences import DIFFERENCES, difference_of, log_complement
from kd.losses.likelihood_chunks import UnbiasedChunkLikelihood, word_starts
from kd.losses.rows import Following
from kd.losses.setup import Vocabularies
from kd.losses.spans import SpanLogProbs, Spans
from kd.losses.teacher import TopKRows
from tests.losses.batches import IGNORED, cross_tokenizer, same_tokenizer, stored

LOSSES = ["chunk_likelihood", "chunk_likelihood_unbiased"]
logs = st.floats(-50, -1e-9)
temperatures = st.sampled_from([1.0, 3.0, 100.0])


def row(value: float, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.tensor([value], dtype=dtype)


@pytest.mark.parametrize("name", DIFFERENCES)
@given(logs, logs, temperatures)
@settings(max_examples=50)
def test_differences_are_zero_for_equal_probabilities_and_positive_otherwise(
    name: str, teacher: float, student: float, temperature: float
) -> None:
    equal = row(teacher).requires_grad_()
    same = difference_of(name, row(teacher), equal, temperature)
    same.backward()
    assert same.item() == 0.0 and equal.grad is not None and equal.grad.abs() < 1e-6
    assume(abs(teacher - student) > 1e-3 * -teacher)
    assert difference_of(name, row(teacher), row(student), temperature) > 0


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("binary_kl", 0.5 * log(0.5 / 0.2) + 0.5 * log(0.5 / 0.8)),
        ("reverse_binary_kl", 0.2 * log(0.2 / 0.5) + 0.8 * log(0.8 / 0.5)),
        ("binary_kl_limit", log(0.25) - log(0.04) + log(0.25) * log(log(0.04) / log(0.25))),
        ("absolute_probability", 0.5 - 0.2),
        ("absolute_log_ratio", log(0.25 / 0.04)),
        ("squared_log_ratio", log(0.5 / 0.2) ** 2 / 2),
        ("exponential_log_ratio", 0.5 / 0.2 - 1 - log(0.5 / 0.2)),
    ],
)
def test_differences_by_hand(name: str, expected: float) -> None:
    """Probabilities 0.25 and 0.04; at temperature 2, 0.5 and 0.2."""
    value = difference_of(name, row(log(0.25)), row(log(0.04)), 2.0)
    torch.testing.assert_close(value, row(expected))


@given(st.floats(-20, -0.1), st.floats(-20, -0.1))
@settings(max_examples=50)
def test_the_limit_is_that_of_high_temperatures(teacher: float, student: float) -> None:
    limit = difference_of("binary_kl_limit", row(teacher), row(student), 1.0)
    high = 1e6 * difference_of("binary_kl", row(teacher), row(student), 1e6)
    torch.testing.assert_close(high, limit, rtol=1e-3, atol=1e-4)


def test_the_complement_is_precise_near_certainty_and_far_from_it() -> None:
    x = torch.tensor([-1e-12, -1e-3, -log(2), -1.0, -40.0], dtype=torch.float64)
    expected = [log(1e-12), log(1 - exp(-1e-3)), log(0.5), log(1 - exp(-1)), -exp(-40)]
    expected_rows = torch.tensor(expected, dtype=torch.float64)
    torch.testing.assert_close(log_complement(x), expected_rows, rtol=1e-9, atol=0)


@pytest.mark.parametrize("name", DIFFERENCES)
@pytest.mark.parametrize(("teacher", "student"), [(-1e-3, -900.0), (0.0, -900.0), (-5.0, 0.0)])
def test_extreme_likelihoods_in_float32_give_finite_values_and_gradients(
    name: str, teacher: float, student: float
) -> None:
    own = row(student, torch.float32).requires_grad_()
    value = difference_of(name, row(teacher, torch.float32), own, 1.0)
    value.backward()
    assert value.isfinite() and own.grad is not None and own.grad.isfinite()


def test_the_exponential_goes_on_as_its_tangent() -> None:
    below, above = row(-59.999999).requires_grad_(), row(-60.000001).requires_grad_()
    values = [difference_of("exponential_log_ratio", row(0.0), own, 1.0) for own in (below, above)]
    for value in values:
        value.backward()
    assert below.grad is not None and above.grad is not None
    torch.testing.assert_close(values[0], values[1], rtol=1e-5, atol=0)
    torch.testing.assert_close(below.grad, above.grad, rtol=1e-5, atol=0)


def test_a_teacher_that_excludes_its_own_text_is_compared_all_the_same() -> None:
    own = row(-1.0).requires_grad_()
    value = difference_of("binary_kl", row(-torch.inf), own, 1.0)
    value.backward()
    torch.testing.assert_close(value.detach(), row(-log(1 - exp(-1))))
    assert own.grad is not None and own.grad.isfinite()


def test_chunks_are_compared_by_the_probabilities_of_their_tokens() -> None:
    """The second answer of the student: tokens 0 and 1 against the teacher's token 0."""
    batch = cross_tokenizer().sequence(1)
    assert batch.teacher_labels is not None
    log_q = batch.student_logits[0].log_softmax(-1)
    log_p = batch.dense[0].log_softmax(-1)
    own, other = batch.student_labels[0], batch.teacher_labels[0]
    first = abs(log_q[2, own[3]] + log_q[3, own[4]] - log_p[1, other[2]])
    second = abs(log_q[4, own[5]] + log_q[5, own[6]] - log_p[2, other[3]])
    value = batch.loss("chunk_likelihood", difference="absolute_log_ratio")
    torch.testing.assert_close(value, (first + second) / 2)


@pytest.mark.parametrize("difference", DIFFERENCES)
def test_a_truncated_teacher_changes_nothing(difference: str) -> None:
    batch = cross_tokenizer()
    settings = {"difference": difference, "chunk_temperature": 2.0}
    truncated = stored(batch, epsilon=0.9, cap=1).loss("chunk_likelihood", **settings)
    torch.testing.assert_close(
        truncated, batch.loss("chunk_likelihood", **settings), rtol=1e-5, atol=0
    )


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("difference", DIFFERENCES)
def test_identical_models_give_zero_without_a_gradient(name: str, difference: str) -> None:
    batch = same_tokenizer()
    twin = replace(
        batch,
        teacher_logits=batch.student_logits.clone(),
        setup=Setup(vocabularies=Vocabularies(*[[" a", *"bcdefg"]] * 2)),
    )
    assert twin.loss(name, difference=difference).item() == 0.0
    assert twin.gradient(name, difference=difference).abs().max() < 1e-12


def test_a_chunk_counts_once_or_once_for_each_of_the_teachers_tokens() -> None:
    batch = cross_tokenizer().sequence(0)  # chunks of 1, 2 and 1 of the teacher's tokens
    parts = []
    for last in (1, 2, 3):  # the first chunks alone, by a shorter student's answer
        target = batch.student_labels.clone()
        target[0, 2 + last :] = IGNORED
        parts.append(last * replace(batch, student_labels=target).loss("chunk_likelihood"))
    values = [parts[0], parts[1] - parts[0], parts[2] - parts[1]]
    by_token = batch.loss("chunk_likelihood", weighting="token")
    torch.testing.assert_close(by_token, (values[0] + 2 * values[1] + values[2]) / 3)


# De-biasing: one sequence of chunks of single tokens; of two tokens one begins words.


def unbiased(
    teacher: list[float], start: list[float], known: list[bool], **options: object
) -> Tensor:
    """Values by |L - L'| for chunks of these probabilities and probabilities of a word after.

    The student gives 0.5 to every chunk and 0.8 to a word after it.
    """
    count = len(teacher)

    def side(probs: list[float]) -> SpanLogProbs:
        values = torch.tensor(probs, dtype=torch.float64).log()
        place = torch.arange(count)
        return SpanLogProbs(lambda chosen: values[chosen], place, place * 0, values.dtype)

    def after(probs: list[float]) -> Tensor:
        return torch.tensor([[p, 1 - p] for p in probs], dtype=torch.float64).log()

    loss = UnbiasedChunkLikelihood(
        Vocabularies([" a", "b"], [" a", "b"]),
        difference="absolute_log_ratio",
        **options,  # type: ignore[arg-type]
    )
    following = Following(after([0.8] * count), after(start), torch.tensor(known))
    spans = Spans(side([0.5] * count), side(teacher))
    value: Tensor = loss(spans, following, torch.zeros(count, dtype=torch.int64))
    return value


def test_the_probability_that_a_word_begins_multiplies_all_chunks_but_the_last() -> None:
    value = unbiased([0.4, 0.3, 0.2], [0.6, 0.7, 0.9], [True, True, False])
    expected = [0.4 * 0.6 / (0.5 * 0.8), 0.3 * 0.7 / (0.5 * 0.8), 0.2 / 0.5]
    torch.testing.assert_close(value, torch.tensor(expected, dtype=torch.float64).log().abs())


def test_chunks_that_end_inside_of_a_word_are_joined_with_the_next() -> None:
    value = unbiased([0.4, 0.3, 0.2], [0.05, 0.7, 0.01], [True] * 3, merge_below=0.1)
    joined = log(0.4 * 0.3 * 0.7 / (0.5 * 0.5 * 0.8))
    expected = [0.0, abs(joined), abs(log(0.2 * 0.01 / (0.5 * 0.8)))]
    torch.testing.assert_close(value, torch.tensor(expected, dtype=torch.float64))
    alone = unbiased([0.4, 0.3, 0.2], [0.05, 0.7, 0.01], [True] * 3, merge_below=0.0)
    assert (alone > 0).all()


def test_joined_chunks_count_all_of_their_tokens() -> None:
    settings = {"merge_below": 0.1, "weighting": "token"}
    by_chunk = unbiased([0.4, 0.3], [0.05, 0.7], [True, False], merge_below=0.1)
    by_token = unbiased([0.4, 0.3], [0.05, 0.7], [True, False], **settings)
    torch.testing.assert_close(by_token, 2 * by_chunk)


def test_chunks_are_never_joined_across_sequences() -> None:
    batch = cross_tokenizer()
    whole = batch.loss(
        "alm", merge_below=1.0, difference="absolute_log_ratio", reduction="sequence"
    )
    parts = [
        batch.sequence(b).loss("alm", merge_below=1.0, difference="absolute_log_ratio")
        for b in (0, 1)
    ]
    torch.testing.assert_close(whole, (parts[0] + parts[1]) / 2)


def test_half_of_the_dropped_mass_may_begin_words() -> None:
    loss = UnbiasedChunkLikelihood(Vocabularies([" a", "b"], ["b", " a", "\n"]))
    rows = TopKRows(
        ids=torch.tensor([[1, 0], [0, 0], [2, 0]]),
        log_probs=torch.tensor([[0.5, 0.2], [0.8, 0.0], [1.0, 0.0]]).log(),
        dropped=torch.tensor([0.3, 0.2, 0.0]),
        vocabulary=3,
    )
    starts = loss._start_of_teacher(rows)
    torch.testing.assert_close(starts, torch.tensor([0.65, 0.1, 1.0]))


def test_tokens_that_begin_with_white_space_begin_words() -> None:
    texts = [" a", "a", None, "\n", "\t", "", "a b"]
    assert word_starts(texts).tolist() == [True, False, False, True, True, False, False]
    with pytest.raises(LossError, match="no token"):
        word_starts(["a", None])


@pytest.mark.parametrize(
    "options",
    [{"difference": "binary"}, {"chunk_temperature": 0.0}, {"weighting": "word"}],
)
@pytest.mark.parametrize("name", LOSSES)
def test_undefined_options_are_refused(name: str, options: dict[str, object]) -> None:
    with pytest.raises(LossError):
        cross_tokenizer().loss(name, **options)
    with pytest.raises(LossError, match="merge_below"):
        cross_tokenizer().loss("alm", merge_below=1.5)
