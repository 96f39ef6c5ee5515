"""GOLD's hybrid loss: what it becomes where all tokens match, or none; its limits and options."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from kd.errors import LossError
from kd.losses import Setup
from kd.losses.setup import Vocabularies
from kd.losses.span_merged import GoldHybrid, matched_tokens
from tests.losses.batches import Batch, cross_tokenizer, same_tokenizer, single_tokens
from tests.losses.test_spans import chain, masses
from tests.losses.test_truncation import distributions, top_k

Texts = list[str | None]


def hybrid(student: Texts, teacher: Texts, **options: float | None) -> GoldHybrid:
    return GoldHybrid(Vocabularies(student, teacher), **options)  # type: ignore[arg-type]


def with_texts(batch: Batch, student: Texts, teacher: Texts) -> Batch:
    return replace(batch, setup=Setup(vocabularies=Vocabularies(student, teacher)))


def letters(count: int) -> Texts:
    return [chr(ord("a") + number) for number in range(count)]


def test_tokens_are_matched_by_text_once_each_and_never_without_text() -> None:
    student: Texts = [" a", None, "b", "c", "b"]
    teacher: Texts = ["b", " a", None, "b", "d"]
    assert matched_tokens(student, teacher) == ([2, 0], [0, 1])


def test_a_row_by_hand() -> None:
    """Tokens a and b match; the student's c meets the teacher's x and y by rank."""
    student = torch.tensor([[0.5, 0.1, 0.4]], dtype=torch.float64)
    teacher = torch.tensor([[0.3, 0.2, 0.25, 0.25]], dtype=torch.float64)
    loss = hybrid(["a", "b", "c"], ["x", "b", "a", "y"])
    value = loss(student.log(), teacher.log(), single_tokens(1))
    p, q = teacher[0, [2, 1]], student[0, :2]
    mixture = (p + q) / 2
    divergence = ((p * (p / mixture).log() + q * (q / mixture).log()) / 2).sum()
    expected = 2 / 4 * divergence + 2 / 4 * (abs(0.4 - 0.3) + 0.25)
    torch.testing.assert_close(value, expected[None])


@pytest.mark.parametrize("alignment", ["truncate", "spans"])
def test_without_a_match_it_is_uld(alignment: str) -> None:
    batch = with_texts(cross_tokenizer(), letters(7), ["?"] * 9)
    hybrid_value = batch.loss("gold_hybrid", alignment=alignment)
    torch.testing.assert_close(hybrid_value, batch.loss("uld", alignment=alignment))


@pytest.mark.parametrize("weight", [0.0, 0.3, 1.0])
def test_with_one_vocabulary_it_is_the_jensen_shannon_divergence(weight: float) -> None:
    batch = with_texts(same_tokenizer(), letters(7), letters(7))
    settings = {"teacher_weight": weight, "scaled": True}
    torch.testing.assert_close(
        batch.loss("gold_hybrid", **settings), batch.loss("jensen_shannon", **settings)
    )


def test_tokens_may_have_any_order_on_either_side() -> None:
    batch = cross_tokenizer()
    vocabularies = batch.setup.vocabularies
    assert vocabularies is not None
    order, other = torch.randperm(7), torch.randperm(9)
    shuffled = replace(
        batch,
        student_logits=batch.student_logits[..., order],
        teacher_logits=batch.dense[..., other],
    )
    shuffled = with_texts(
        shuffled,
        [vocabularies.student[i] for i in order],
        [vocabularies.teacher[i] for i in other],
    )
    torch.testing.assert_close(
        shuffled.loss("gold_hybrid", alignment="truncate"),
        batch.loss("gold_hybrid", alignment="truncate"),
    )


weights = st.sampled_from([0.0, 1e-6, 0.1, 0.5, 0.9, 1.0])


@given(distributions(), masses, masses, weights)
@settings(max_examples=50)
def test_it_is_never_negative(
    case: tuple[Tensor, Tensor, int], own_mass: float, other_mass: float, weight: float
) -> None:
    student, teacher, _ = case
    texts = letters(student.shape[-1])
    loss = hybrid(
        texts,
        [*texts[: len(texts) // 2], *"?" * (len(texts) - len(texts) // 2)],
        teacher_weight=weight,
        scaled=True,
    )
    spans = chain(own_mass, other_mass)
    assert (loss(student.log(), teacher.log(), spans) >= -1e-12).all()


@pytest.mark.parametrize("weight", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("alignment", ["truncate", "spans"])
def test_identical_models_give_zero_without_a_gradient(weight: float, alignment: str) -> None:
    batch = with_texts(same_tokenizer(), letters(7), [*letters(4), None, "x", "y"])
    twin = replace(batch, teacher_logits=batch.student_logits.clone())
    settings = {"teacher_weight": weight, "scaled": True, "alignment": alignment}
    assert twin.loss("gold_hybrid", **settings).abs() < 1e-15
    assert twin.gradient("gold_hybrid", **settings).abs().max() < 1e-15


@pytest.mark.parametrize(("weight", "sign"), [(0.0, 1), (1.0, -1)])
def test_without_mass_terms_the_masses_of_both_parts_are_missing(weight: float, sign: int) -> None:
    student, teacher = torch.randn(2, 4, 6, dtype=torch.float64)
    spans = single_tokens(4)
    texts = letters(6), [*letters(3), "x", "y", "z"]
    kept, missing = (
        hybrid(
            *texts,
            teacher_weight=weight,
            scaled=True,
            matched_weight=1.0,
            unmatched_weight=0.0,
            mass_terms=mass_terms,
        )(student, teacher, spans)
        for mass_terms in (True, False)
    )
    masses = student.softmax(-1)[:, :3].sum(-1) - teacher.softmax(-1)[:, :3].sum(-1)
    torch.testing.assert_close(kept - missing, sign * masses)


@pytest.mark.parametrize(("end", "near"), [(0.0, 1e-9), (1.0, 1 - 1e-9)])
def test_scaled_is_continuous_at_both_ends_on_parts_of_distributions(
    end: float, near: float
) -> None:
    batch = cross_tokenizer()
    at, beside = (
        batch.loss("gold_hybrid", teacher_weight=weight, scaled=True) for weight in (end, near)
    )
    torch.testing.assert_close(at, beside, rtol=1e-5, atol=0)


@given(distributions(), masses, masses)
@settings(max_examples=50)
def test_a_truncated_second_term_is_within_the_dropped_mass(
    case: tuple[Tensor, Tensor, int], own_mass: float, other_mass: float
) -> None:
    student, teacher, k = case
    texts: Texts = letters(student.shape[-1])
    loss = hybrid(["a", *["?"] * (len(texts) - 1)], texts, matched_weight=0.0, unmatched_weight=1.0)
    spans, truncated = chain(own_mass, other_mass), top_k(teacher, k)
    error = loss(student.log(), truncated, spans) - loss(student.log(), teacher.log(), spans)
    assert (error.abs() <= truncated.dropped * other_mass + 1e-12).all()


@given(distributions(), masses, weights)
@settings(max_examples=50)
def test_nothing_dropped_is_the_dense_loss(
    case: tuple[Tensor, Tensor, int], mass: float, weight: float
) -> None:
    student, teacher = (0.9 * side + 0.1 / side.shape[-1] for side in case[:2])  # none impossible
    texts: Texts = letters(student.shape[-1])
    loss = hybrid(texts, [*texts[1:], "?"], teacher_weight=weight, scaled=True)
    full = top_k(teacher, teacher.shape[-1])
    spans = chain(mass, 0.5)
    stored, dense = (loss(student.log(), side, spans) for side in (full, teacher.log()))
    torch.testing.assert_close(stored, dense, rtol=1e-9, atol=1e-12)


def test_dropped_mass_is_shared_among_the_tokens_that_were_not_stored() -> None:
    """Of four tokens two are stored; of the two others one is in M, and has half the mass."""
    student = torch.tensor([[0.5, 0.3, 0.2]], dtype=torch.float64)
    teacher = torch.tensor([[0.6, 0.2, 0.15, 0.05]], dtype=torch.float64)
    loss = hybrid(["a", "b", "c"], ["a", "x", "b", "y"], matched_weight=1.0, unmatched_weight=0.0)
    evenly = torch.tensor([[0.6, 0.2, 0.1, 0.1]], dtype=torch.float64)
    stored = loss(student.log(), top_k(teacher, 2), single_tokens(1))
    torch.testing.assert_close(stored, loss(student.log(), evenly.log(), single_tokens(1)))


def test_adaptive_weights_are_shares_of_the_teachers_vocabulary() -> None:
    batch = cross_tokenizer()  # seven common tokens, one of them without text, of nine
    fixed = batch.loss("gold_hybrid", matched_weight=6 / 9, unmatched_weight=3 / 9)
    torch.testing.assert_close(batch.loss("gold_hybrid"), fixed)


@pytest.mark.parametrize(
    "options",
    [
        {"matched_weight": 0.5},
        {"unmatched_weight": 0.5},
        {"matched_weight": -1.0, "unmatched_weight": 1.0},
        {"teacher_weight": 1.5},
        {"teacher_weight": 0.0},
        {"teacher_weight": 1.0},
    ],
)
def test_undefined_options_are_refused(options: dict[str, float]) -> None:
    with pytest.raises(LossError):
        hybrid(["a"], ["a"], **options)


def test_the_vocabularies_must_be_given() -> None:
    with pytest.raises(LossError, match="needs 'vocabularies'"):
        replace(cross_tokenizer(), setup=Setup()).loss("gold_hybrid")
