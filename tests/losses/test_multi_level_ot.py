"""Multi-level optimal transport: as the paper has it, and as its code does."""

from dataclasses import replace
from functools import partial
from itertools import permutations

import ot
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from kd.errors import LossError
from kd.losses import distillation_loss
from kd.losses.kl import forward_kl
from kd.losses.multi_level_ot import matched_columns
from kd.losses.multi_level_ot_releases import _probabilities
from kd.losses.sequence_transport import transport_shares
from tests.losses.batches import IGNORED, Batch, cross_tokenizer, labels, stored, uld

NAME = "multi_level_ot"
ABSOLUTE = {"log_weight": 0.0, "sinkhorn_weight": 0.0}
RELEASES = ("head", "pre202602")


def one_sequence(rows: int, student: int, teacher: int, seed: int = 0) -> Batch:
    """One answer of as many tokens on both sides."""
    torch.manual_seed(seed)
    return Batch(
        2 * torch.randn(1, rows + 2, student, dtype=torch.float64),
        2 * torch.randn(1, rows + 3, teacher, dtype=torch.float64),
        labels([1], [rows], rows + 2, student),
        labels([1], [rows], rows + 3, teacher),
    )


def answer(batch: Batch) -> tuple[Tensor, Tensor]:
    """Both sides' logits on the answer of `one_sequence`."""
    rows = batch.student_logits.shape[1] - 2
    return batch.student_logits[0, :rows], batch.dense[0, :rows]


# --- the paper ------------------------------------------------------------------------------


@given(st.integers(2, 9), st.integers(2, 9), st.integers(0, 10**6))
@settings(max_examples=50)
def test_one_row_is_uld_and_kl_between_equal_ranks(student: int, teacher: int, seed: int) -> None:
    """With all columns kept; the cost of the only pair of rows is the Sinkhorn distance."""
    batch = one_sequence(1, student, teacher, seed)
    kept = min(student, teacher)
    q, p = (side.log_softmax(-1).sort(descending=True).values[:, :kept] for side in answer(batch))
    absolute = (p.exp() - q.exp()).abs().sum()
    torch.testing.assert_close(batch.loss(NAME, **ABSOLUTE), absolute)
    logarithmic = batch.loss(NAME, log_weight=1.0, sinkhorn_weight=0.0) - absolute
    torch.testing.assert_close(logarithmic, forward_kl(q, p)[0])
    sinkhorn = batch.loss(NAME, log_weight=0.0, sinkhorn_weight=1.0) - absolute
    apart = ((p / 2).softmax(-1) - (q / 2).softmax(-1)).abs().sum()
    torch.testing.assert_close(sinkhorn, apart)
    if student == teacher:
        torch.testing.assert_close(absolute, uld(*answer(batch))[0])


@given(st.integers(1, 4), st.integers(2, 5), st.integers(2, 5), st.integers(0, 10**6))
@settings(max_examples=25)
def test_no_pairing_of_columns_has_less_to_move(
    rows: int, student: int, teacher: int, seed: int
) -> None:
    torch.manual_seed(seed)
    sides = [(2 * torch.randn(rows, size)).double().log_softmax(-1) for size in (student, teacher)]
    log_q, log_p = matched_columns(*sides, top_k=4)
    kept = log_q.shape[1]
    assert kept == min(4, student, teacher)
    p, q = log_p.exp(), log_q.exp()
    least = min((p - q[:, order]).abs().sum() for order in map(list, permutations(range(kept))))
    torch.testing.assert_close((p - q).abs().sum(), least, rtol=1e-5, atol=0)
    for side, columns in zip(sides, (log_q, log_p), strict=True):
        leading = side.exp().sum(0).sort(descending=True).values[:kept]
        torch.testing.assert_close(columns.exp().sum(0).sort(descending=True).values, leading)


def test_squares_decide_between_equal_sums_only() -> None:
    """Here the least sum of squares belongs to a pairing with more to move."""
    torch.manual_seed(5)
    sides = [(2 * torch.randn(3, 5)).double().exp() for _ in range(2)]
    sides = [side / side.sum(-1, keepdim=True) for side in sides]
    log_q, log_p = matched_columns(*(side.log() for side in sides), top_k=4)
    p, q = log_p.exp(), log_q.exp()
    orders = [list(order) for order in permutations(range(4))]
    sums = torch.stack([(p - q[:, order]).abs().sum() for order in orders])
    squares = torch.stack([(p - q[:, order]).square().sum() for order in orders])
    assert sums[squares.argmin()] > sums.min() + 1e-3
    torch.testing.assert_close(sums[0], sums.min(), rtol=1e-5, atol=0)


def test_a_permuted_vocabulary_gives_zero_with_a_zero_gradient_but_for_sinkhorn() -> None:
    """Entropy keeps the plan off the diagonal, so that rows are compared that differ."""
    batch = one_sequence(4, 6, 6)
    rows = batch.student_logits.shape[1]
    same = replace(
        batch,
        teacher_logits=batch.student_logits[:, :, torch.randperm(6)],
        teacher_labels=batch.student_labels,
    )
    exact = {"sinkhorn_weight": 0.0}
    assert same.loss(NAME, **exact).abs() < 1e-12
    assert same.gradient(NAME, **exact).abs().max() < 1e-12
    assert same.loss(NAME) > 1e-6 and rows == 6


def test_rows_beyond_the_shorter_answer_are_not_read() -> None:
    """The first student has 3 answer tokens against 4, the second 4 against 2."""
    batch = cross_tokenizer()
    teacher, student = batch.dense.clone(), batch.student_logits.clone()
    teacher[0, 6], student[1, 4:6] = 5.0, -5.0
    changed = replace(batch, teacher_logits=teacher, student_logits=student)
    torch.testing.assert_close(changed.loss(NAME), batch.loss(NAME))
    for variant in RELEASES:
        assert not torch.isclose(
            changed.loss(NAME, variant=variant), batch.loss(NAME, variant=variant), rtol=1e-6
        )


def test_only_the_leading_columns_count() -> None:
    batch = one_sequence(3, 8, 8)
    student, teacher = (side.log_softmax(-1) for side in answer(batch))
    log_q, log_p = matched_columns(student, teacher, top_k=2)
    expected = (log_p.exp() - log_q.exp()).abs().sum(-1).mean()
    torch.testing.assert_close(batch.loss(NAME, top_k=2, **ABSOLUTE), expected)
    assert not torch.isclose(expected, batch.loss(NAME, **ABSOLUTE))


def test_a_truncated_row_without_any_leading_token_is_no_obstacle() -> None:
    """Its one stored token weighs least over the sequence, and is not among the two kept."""
    batch = one_sequence(3, 5, 5)
    teacher = batch.dense.clone()
    teacher[0, :2, :], teacher[0, 2, :] = -9.0, -9.0
    teacher[0, :2, :2], teacher[0, 2, 4] = 9.0, 9.0
    truncated = stored(
        replace(
            batch,
            teacher_logits=teacher,
            extras=cross_tokenizer().extras,
        ),
        epsilon=0.01,
    )
    assert truncated.loss(NAME, top_k=2).isfinite()
    assert truncated.gradient(NAME, top_k=2).isfinite().all()


@given(st.integers(1, 6), st.integers(0, 10**6))
@settings(max_examples=25, deadline=None)
def test_the_sinkhorn_distance_is_that_of_a_solver(rows: int, seed: int) -> None:
    """The solver's marginals are 1/T, ours 1."""
    torch.manual_seed(seed)
    first, second = (torch.rand(rows, 4).double().softmax(-1) for _ in range(2))
    costs = torch.cdist(first, second, p=1).numpy()
    plan = ot.sinkhorn([], [], costs, reg=0.1, method="sinkhorn_log", stopThr=1e-12)
    found = transport_shares(first, second, iterations=500).sum().item()
    assert found == pytest.approx(rows * (plan * costs).sum(), rel=1e-6, abs=1e-9)


def test_costs_of_rows_stand_beside_the_students() -> None:
    """Two rows that fit and one that does not: what it costs is mostly its own."""
    teacher = torch.eye(3).double()
    student = torch.stack([torch.full((3,), 1 / 3).double(), teacher[0], teacher[1]])
    shares = transport_shares(teacher, student, iterations=20)
    assert shares[0] > 100 * shares[1:].max()


# --- the code -------------------------------------------------------------------------------


@pytest.mark.parametrize("variant", RELEASES)
def test_the_gradient_of_a_release_is_right(variant: str) -> None:
    batch = cross_tokenizer()
    logits = batch.student_logits.clone().requires_grad_()
    assert torch.autograd.gradcheck(
        lambda z: replace(batch, student_logits=z).loss(NAME, variant=variant), logits
    )


def test_the_sinkhorn_term_of_a_release_by_hand() -> None:
    batch = one_sequence(3, 6, 6)
    q, p = (
        (side / (side.std(-1, keepdim=True) + 1e-4)).softmax(-1).sort(descending=True).values
        for side in answer(batch)
    )
    costs = torch.cdist((p / 2).softmax(-1), (q / 2).softmax(-1), p=1)
    plan = (-costs / 0.1).exp()
    for _ in range(10):
        plan = plan / plan.sum(1, keepdim=True)
        plan = plan / plan.sum(0, keepdim=True)
    with_it, without = (
        batch.loss(NAME, variant="pre202602", sinkhorn_weight=weight) for weight in (1000.0, 0.0)
    )
    torch.testing.assert_close(with_it - without, (plan * costs).sum(), rtol=1e-12, atol=0)


def test_a_sequence_without_pairs_counts_in_no_mean_of_a_release() -> None:
    batch = cross_tokenizer()
    target = batch.student_labels.clone()
    target[1] = IGNORED
    masked = replace(batch, student_labels=target)
    kept = {"variant": "pre202602", **ABSOLUTE}
    torch.testing.assert_close(masked.loss(NAME, **kept), batch.sequence(0).loss(NAME, **kept))


@pytest.mark.parametrize("variant", RELEASES)
def test_a_release_is_no_mean_over_sequences(variant: str) -> None:
    """Which is why its micro-batches do not add up."""
    batch = cross_tokenizer()
    parts = torch.stack([batch.sequence(b).loss(NAME, variant=variant) for b in (0, 1)])
    assert not torch.isclose(batch.loss(NAME, variant=variant), parts.mean(), rtol=1e-6)


def test_the_releases_differ_in_the_order_of_columns_alone() -> None:
    """Where every row has the same order, they agree."""
    batch = cross_tokenizer()
    assert not torch.isclose(
        batch.loss(NAME, variant="head"), batch.loss(NAME, variant="pre202602"), rtol=1e-3
    )
    ordered = replace(
        batch,
        student_logits=batch.student_logits.sort(-1).values,
        teacher_logits=batch.dense.sort(-1).values,
    )
    torch.testing.assert_close(
        ordered.loss(NAME, variant="head"), ordered.loss(NAME, variant="pre202602")
    )


@pytest.mark.parametrize("variant", RELEASES)
def test_only_temperatures_after_standardisation_have_an_effect(variant: str) -> None:
    batch = cross_tokenizer()
    value = batch.loss(NAME, variant=variant)
    tempered = batch.loss(NAME, variant=variant, temperature=2.0)
    torch.testing.assert_close(tempered, value, rtol=1e-3, atol=0)
    for side in ("student", "teacher"):
        option = {f"standardised_{side}_temperature": 2.0}
        assert not torch.isclose(batch.loss(NAME, variant=variant, **option), value, rtol=1e-2)


@pytest.mark.parametrize("variant", RELEASES)
def test_padded_columns_change_nothing_in_a_release(variant: str) -> None:
    batch = cross_tokenizer()
    pad = partial(torch.nn.functional.pad, pad=(0, 2), value=-torch.inf)
    padded = replace(
        batch, student_logits=pad(batch.student_logits), teacher_logits=pad(batch.dense)
    )
    value = batch.loss(NAME, variant=variant)
    torch.testing.assert_close(padded.loss(NAME, variant=variant), value)
    gradient = padded.gradient(NAME, variant=variant)
    torch.testing.assert_close(gradient[..., :-2], batch.gradient(NAME, variant=variant))


@pytest.mark.parametrize("variant", RELEASES)
def test_a_release_needs_the_teachers_whole_distributions(variant: str) -> None:
    batch = cross_tokenizer()
    whole = stored(batch, epsilon=0.0).loss(NAME, variant=variant)
    torch.testing.assert_close(whole, batch.loss(NAME, variant=variant))
    with pytest.raises(LossError, match="truncated"):
        stored(batch, epsilon=0.1).loss(NAME, variant=variant)


def test_standardised_logits_have_a_gradient_even_where_they_are_all_equal() -> None:
    logits = torch.tensor([[1.0, 1.0, 1.0], [2.0, -torch.inf, -torch.inf]], requires_grad=True)
    probs = _probabilities(logits, 1.0)
    torch.testing.assert_close(probs[0], torch.full((3,), 1 / 3))
    probs[:, 0].sum().backward()
    assert logits.grad.isfinite().all()


@pytest.mark.parametrize("variant", ["paper", *RELEASES])
def test_a_model_that_has_diverged_gives_nan(variant: str) -> None:
    batch = cross_tokenizer()
    diverged = replace(batch, student_logits=torch.full_like(batch.student_logits, torch.nan))
    assert diverged.loss(NAME, variant=variant).isnan()


# --- both -----------------------------------------------------------------------------------


def test_it_has_another_name() -> None:
    batch = cross_tokenizer()
    assert torch.equal(distillation_loss("multi-ot", *batch.tensors), batch.loss(NAME))


@pytest.mark.parametrize(
    ("options", "message"), [({"variant": "heads"}, "head"), ({"top_k": 0}, "top_k")]
)
def test_undefined_options_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(LossError, match=message):
        cross_tokenizer().loss(NAME, **options)
