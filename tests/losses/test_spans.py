"""Spans of several tokens: the chain rule, its cost, and `uld` on them."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from kd.errors import LossError
from kd.losses import Extras, TeacherLogits, load_loss, ot
from kd.losses.conventions import Conventions
from kd.losses.rows import AlignedBatch
from kd.losses.spans import SpanLogProbs, Spans
from tests.losses.batches import IGNORED, Batch, cross_tokenizer, same_tokenizer, stored
from tests.losses.test_truncation import distributions, top_k


def aligned(batch: Batch, alignment: str = "spans", temperature: float = 1.0) -> AlignedBatch:
    loss = load_loss("uld", Conventions(alignment=alignment, temperature=temperature))
    return loss.align(*batch.tensors, batch.extras)


def own(logits: Tensor, labels: Tensor, b: int, tokens: list[int], temperature: float) -> Tensor:
    """Log-probability of the given answer tokens of sequence b together, by hand."""
    positions = (labels[b] != IGNORED).nonzero()[:, 0]
    rows = (logits[b] / temperature).log_softmax(-1)
    return sum(
        (rows[positions[t] - 1, labels[b, positions[t]]] for t in tokens), rows.new_zeros(())
    )


# The spans of `cross_tokenizer`, by sequence: tokens of the student and of the teacher.
SPANS = [(0, [0], [0]), (0, [1], [1, 2]), (0, [2], [3]), (1, [0, 1], [0]), (1, [2, 3], [1])]


@pytest.mark.parametrize("temperature", [1.0, 2.0])
@pytest.mark.parametrize("from_store", [False, True])
def test_spans_have_the_log_probabilities_of_their_own_tokens(
    temperature: float, from_store: bool
) -> None:
    batch = cross_tokenizer()
    found = aligned(stored(batch, 0.0) if from_store else batch, temperature=temperature).spans
    assert batch.teacher_labels is not None
    for row, (b, student, teacher) in enumerate(SPANS):
        for side, logits, labels, tokens in (
            (found.student, batch.student_logits, batch.student_labels, student),
            (found.teacher, batch.dense, batch.teacher_labels, teacher),
        ):
            whole = own(logits, labels, b, tokens, temperature)
            before = own(logits, labels, b, tokens[:-1], temperature)
            torch.testing.assert_close(side.whole[row], whole, rtol=0, atol=2e-6)
            torch.testing.assert_close(side.before[row], before, rtol=0, atol=2e-6)
            assert side.tokens[row] == len(tokens)


def test_a_chained_row_holds_the_probability_of_the_whole_span() -> None:
    batch = aligned(cross_tokenizer())
    chained = batch.spans.student.chained(batch.student.softmax(-1))
    of_span = chained.gather(-1, batch.targets[:, None])[:, 0]
    torch.testing.assert_close(of_span, batch.spans.student.whole.exp())
    torch.testing.assert_close(chained.sum(-1), batch.spans.student.mass)
    assert (batch.spans.student.mass[3:] < 1).all()


def test_a_truncated_teacher_knows_its_own_tokens_exactly() -> None:
    batch = stored(cross_tokenizer(), epsilon=0.9, cap=1)
    exact = aligned(cross_tokenizer()).spans.teacher.whole
    torch.testing.assert_close(aligned(batch).spans.teacher.whole, exact, rtol=0, atol=1e-6)
    with pytest.raises(LossError, match="whole distributions"):
        aligned(batch, temperature=2.0).spans.teacher.whole  # noqa: B018


def test_single_tokens_need_no_log_probabilities() -> None:
    """Under `truncate`, `uld` asks a store for nothing but its top-k."""
    batch = stored(cross_tokenizer(), epsilon=0.05)
    teacher = batch.teacher_logits
    assert isinstance(teacher, TeacherLogits)
    bare = replace(
        batch,
        extras=Extras(),
        teacher_logits=replace(teacher, tokens=None, token_log_probs=None, token_ends=None),
    )
    assert torch.equal(bare.loss("uld"), batch.loss("uld"))
    rows = aligned(batch, "truncate").student
    assert aligned(batch, "truncate").spans.student.chained(rows) is rows
    with pytest.raises(LossError, match="student_ends"):
        bare.loss("uld", alignment="spans")
    no_tokens = replace(batch, teacher_logits=replace(teacher, token_log_probs=None))
    with pytest.raises(LossError, match="token_log_probs"):
        no_tokens.loss("uld", alignment="spans")


def test_what_follows_a_span_is_the_next_answer_token_on_both_sides() -> None:
    batch = cross_tokenizer()
    found = aligned(batch).following
    assert found.known.tolist() == [True, True, False, True, False]
    assert isinstance(found.teacher, Tensor)
    # Answers begin at 2 and 3 (student), 4 and 2 (teacher); row t predicts token t + 1.
    assert torch.equal(found.student[0], batch.student_logits[0, 2])
    assert torch.equal(found.teacher[1], batch.dense[0, 6])
    assert torch.equal(found.student[3], batch.student_logits[1, 4])


def test_uld_on_spans_by_hand() -> None:
    """Two student tokens, of which the first had probability 0.5, against one of the teacher."""
    student = torch.tensor([[0.9, 0.1]], dtype=torch.float64).log()
    teacher = torch.tensor([[0.2, 0.5, 0.3]], dtype=torch.float64).log()
    value = ot.uld(student, teacher, chain(0.5, 1.0))
    expected = abs(0.5 - 0.45) + abs(0.3 - 0.05) + 0.2
    torch.testing.assert_close(value, torch.tensor([expected], dtype=torch.float64))


def chain(student: float, teacher: float) -> Spans:
    """Spans of one row each, whose tokens before the last have these probabilities."""
    sides = [torch.tensor([mass], dtype=torch.float64).log() for mass in (student, teacher)]
    nothing, one = torch.zeros(1, dtype=torch.int64), torch.ones(1, dtype=torch.int64)
    return Spans(
        *(
            SpanLogProbs(
                lambda chosen, side=side: side, first=nothing, further=one, dtype=side.dtype
            )
            for side in sides
        )
    )


masses = st.one_of(st.sampled_from([1.0, 1e-6]), st.floats(1e-3, 1))


@given(distributions(), masses, masses)
@settings(max_examples=50)
def test_the_bound_on_truncated_uld_holds_on_spans(
    case: tuple[Tensor, Tensor, int], own_mass: float, other_mass: float
) -> None:
    student, teacher, k = case
    spans, truncated = chain(own_mass, other_mass), top_k(teacher, k)
    full = ot.uld(student.log(), teacher.log(), spans)
    error = (ot.uld(student.log(), truncated, spans) - full).abs()
    assert (error <= truncated.dropped * other_mass + 1e-12).all()


@pytest.mark.parametrize("student", [[1.0, 0.0, 0.0, 0.0], [0.6, 0.2, 0.1, 0.1]])
def test_the_bound_on_spans_is_reached(student: list[float]) -> None:
    teacher = torch.tensor([[0.6, 0.2, 0.1, 0.1]], dtype=torch.float64)
    own, spans = torch.tensor([student], dtype=torch.float64).log(), chain(0.4, 0.4)
    error = ot.uld(own, top_k(teacher, 2), spans) - ot.uld(own, teacher.log(), spans)
    torch.testing.assert_close(error.abs(), 0.4 * top_k(teacher, 2).dropped)


def test_uld_on_spans_trains_the_rows_of_earlier_tokens_too() -> None:
    batch = cross_tokenizer()
    reached = batch.gradient("uld", alignment="spans").abs().sum(-1) > 0
    predicting = torch.zeros_like(reached)
    predicting[:, :-1] = batch.student_labels[:, 1:] != IGNORED
    assert not (reached & ~predicting).any()
    assert reached[1, 2] and reached[1, 4]  # before the last tokens of the second answer's spans
    logits = batch.student_logits.clone().requires_grad_()
    assert torch.autograd.gradcheck(
        lambda z: replace(batch, student_logits=z).loss("uld", alignment="spans"), logits
    )


def test_uld_of_identical_models_on_spans_is_zero_without_a_gradient() -> None:
    batch = same_tokenizer()
    twin = replace(batch, teacher_logits=batch.student_logits.clone())
    assert twin.loss("uld", alignment="spans").item() == 0.0
    assert twin.gradient("uld", alignment="spans").abs().max() == 0.0


def test_one_tokenizer_makes_spans_and_positions_the_same() -> None:
    batch = same_tokenizer()
    assert torch.equal(batch.loss("uld", alignment="spans"), batch.loss("uld"))


def test_an_alignment_for_which_a_loss_is_not_defined_is_refused() -> None:
    with pytest.raises(
        LossError, match="not defined under alignment 'chunks', but under: truncate, spans"
    ):
        cross_tokenizer().loss("uld", alignment="chunks")


@pytest.mark.parametrize("epsilon", [0.3, 0.05])
def test_stored_uld_on_spans_is_within_the_dropped_mass(epsilon: float) -> None:
    batch = cross_tokenizer()
    truncated = stored(batch, epsilon)
    assert isinstance(truncated.teacher_logits, TeacherLogits)
    error = truncated.loss("uld", alignment="spans") - batch.loss("uld", alignment="spans")
    assert 0 < error.abs() <= truncated.teacher_logits.dropped.max()
