"""Kernels against the losses that they stand in for: values, gradients, and what they leave."""

import importlib
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from kd.losses import available_losses, distillation_loss, load_loss, loss_info
from kd.losses.kernels.leading import leading
from kd.losses.kernels.ordering import Ranked, classes_for, compare
from kd.losses.kernels.softmax import without_padding
from kd.losses.kernels.sorted_uld import by_sorting
from kd.losses.kernels.uld import FEW
from kd.losses.selection import select_rows
from kd.losses.teacher import Teacher, TopKRows
from kd.training.code import distillation_modules
from tests.losses.batches import batch_for, single_tokens

WITH_KERNEL = sorted(name for name, info in available_losses().items() if info.kernel)

OPTIONS: dict[str, list[dict[str, Any]]] = {
    "symmetric_kl": [{}, {"forward_weight": 0.9}, {"forward_weight": 1.0}],
    "jensen_shannon": [{}, {"teacher_weight": 0.1}, {"teacher_weight": 0.9, "scaled": True}],
    "skew_kl": [{}, {"skew": 0.9}],
    "skew_reverse_kl": [{}, {"skew": 0.9}, {"detach_mixture": True}],
    "alpha_beta": [{}, {"alpha": 1.5, "beta": 0.5}],
    "alpha_divergence": [{}, {"alpha": 0.2}],
    "amid": [
        {"alpha": alpha, "teacher_weight": weight, "order": order}
        for order in ("pr", "qr", "rp", "rq")
        for alpha, weight in ((-1.0, 0.1), (0.5, 0.5))
    ],
}
CASES = [(name, options) for name in WITH_KERNEL for options in OPTIONS.get(name, [{}])]

Function = Callable[..., Any]


def functions(name: str, options: dict[str, Any]) -> tuple[Function, Function]:
    """The kernel and the loss itself, both of student and teacher."""
    info = loss_info(name)
    assert info.kernel is not None
    found = []
    for module in (info.kernel, info.module):
        function = partial(getattr(importlib.import_module(module), info.function), **options)
        if "spans" in info.needs:
            function = with_single_tokens(function)
        found.append(function)
    return found[0], found[1]


def with_single_tokens(function: Function) -> Function:
    return lambda student, teacher: function(student, teacher, single_tokens(len(student)))


def by_autograd(
    loss: Function, student: Tensor, teacher: Teacher, dtype: torch.dtype = torch.float64
) -> tuple[Tensor, Tensor]:
    student = student.to(dtype, copy=True).requires_grad_()
    teacher = teacher.to(dtype) if isinstance(teacher, Tensor) else teacher.cast(dtype)
    values = loss(student, teacher)
    values.sum().backward()
    assert student.grad is not None
    return values.detach(), student.grad


def top_k(logits: Tensor, counts: list[int]) -> TopKRows:
    """The likeliest of each row, as many as `counts` says, and padding."""
    log_probs, ids = logits.double().log_softmax(-1).sort(descending=True)
    ranks = torch.arange(logits.shape[-1])
    kept = ranks < torch.tensor(counts)[:, None]
    most = max(counts)
    return TopKRows(
        ids=ids.where(kept, 0)[:, :most],
        log_probs=log_probs.masked_fill(~kept, -torch.inf)[:, :most].to(logits.dtype),
        dropped=log_probs.masked_fill(kept, -torch.inf).exp().sum(-1).to(logits.dtype),
        vocabulary=logits.shape[-1],
    )


def rows(name: str, sharpness: float, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Logits of student and teacher, five rows; the teacher's vocabulary may be another one."""
    torch.manual_seed(0)
    width = 600 if loss_info(name).same_vocabulary else 450
    return tuple(sharpness * torch.randn(5, size).to(dtype) for size in (600, width))  # type: ignore


def assert_same(found: Any, expected: tuple[Tensor, Tensor]) -> None:
    assert found is not None, "the kernel left the rows to the loss"
    for one, other in zip(found, expected, strict=True):
        assert (one - other).norm() <= 1e-12 * other.norm() + 1e-15


TEACHERS: dict[str, Callable[[Tensor], Teacher]] = {
    "dense": lambda logits: logits,
    "full store": lambda logits: top_k(logits, [logits.shape[-1]] * len(logits)),
    "store": lambda logits: top_k(logits, [1, 40, 7, 40, 3]),
    "half a store": lambda logits: top_k(logits, [200, 5, 150, 199, 1]),
}


@pytest.mark.parametrize("sharpness", [0.3, 3.0])
@pytest.mark.parametrize("teacher", TEACHERS)
@pytest.mark.parametrize(("name", "options"), CASES)
def test_a_kernel_gives_the_values_and_the_gradients_of_its_loss(
    name: str, options: dict[str, Any], teacher: str, sharpness: float
) -> None:
    kernel, loss = functions(name, options)
    student, logits = rows(name, sharpness, torch.float64)
    given = TEACHERS[teacher](logits)
    before = student.clone()
    assert_same(kernel(student, given), by_autograd(loss, student, given))
    assert torch.equal(student, before)


@pytest.mark.parametrize("sharpness", [0.3, 3.0])
@pytest.mark.parametrize("teacher", TEACHERS)
@pytest.mark.parametrize(("name", "options"), CASES)
def test_a_kernel_rounds_no_worse_than_autograd_in_float32(
    name: str, options: dict[str, Any], teacher: str, sharpness: float
) -> None:
    """Within 1e-6 of float64, or as near as autograd: small divergences are differences."""
    kernel, loss = functions(name, options)
    student, logits = rows(name, sharpness, torch.float32)
    given = TEACHERS[teacher](logits)
    exact = by_autograd(loss, student, given)
    rounded = by_autograd(loss, student, given, torch.float32)
    for one, other, reference in zip(kernel(student, given), rounded, exact, strict=True):
        assert one.dtype == torch.float32
        allowed = max(1e-6 * reference.norm(), 3 * (other - reference).norm())
        assert (one - reference).norm() <= allowed


@pytest.mark.parametrize(("name", "options"), CASES)
@pytest.mark.parametrize("teacher", TEACHERS)
def test_padding_of_the_vocabulary_costs_nothing(
    name: str, options: dict[str, Any], teacher: str
) -> None:
    kernel, loss = functions(name, options)
    student, logits = rows(name, 2.0, torch.float64)
    given = TEACHERS[teacher](logits)
    pad = partial(torch.nn.functional.pad, pad=(0, 3), value=-torch.inf)
    padded = pad(logits) if teacher == "dense" else given
    values, gradient = by_autograd(loss, student, given)
    expected = values, torch.nn.functional.pad(gradient, (0, 3))
    assert_same(kernel(pad(student), padded), expected)


@pytest.mark.parametrize("name", WITH_KERNEL)
@pytest.mark.parametrize("teacher", ["dense", "store"])
@pytest.mark.parametrize("excludes", ["student", "teacher"])
def test_what_one_side_alone_excludes_is_the_same_with_the_kernel_and_without(
    name: str, teacher: str, excludes: str
) -> None:
    """Values may be infinite there; the kernel either knows, or leaves the rows alone."""
    kernel, loss = functions(name, {})
    student, logits = rows(name, 2.0, torch.float64)
    (student if excludes == "student" else logits)[:, 10:100] = -torch.inf
    given = TEACHERS[teacher](logits)
    found = kernel(student, given)
    if found is not None:
        torch.testing.assert_close(found, by_autograd(loss, student, given))


@pytest.mark.parametrize("name", WITH_KERNEL)
@pytest.mark.parametrize("teacher", ["dense", "store"])
def test_identical_models_give_nothing(name: str, teacher: str) -> None:
    kernel, _ = functions(name, {})
    student, _ = rows(name, 3.0, torch.float64)
    given = TEACHERS[teacher](student)
    values, gradient = kernel(student, given)
    # Truncated ULD is the middle of what it may be.
    nothing = given.dropped if name == "uld" and isinstance(given, TopKRows) else 0 * values
    torch.testing.assert_close(values, nothing, rtol=0, atol=1e-12)
    if teacher == "dense" or name not in ("uld", "total_variation"):  # they have a kink there
        torch.testing.assert_close(gradient, torch.zeros_like(gradient), rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", WITH_KERNEL)
def test_the_public_loss_uses_the_kernel(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    info = loss_info(name)
    assert info.kernel in distillation_modules(name)
    module = importlib.import_module(str(info.kernel))
    original, calls = getattr(module, info.function), []

    def counted(*args: Any, **kwargs: Any) -> Any:
        calls.append(original(*args, **kwargs))
        return calls[-1]

    batch = batch_for(name)
    settings = {"temperature": 2.0, "reduction": "sequence"}
    plain = load_loss(name, setup=batch.setup)
    plain._kernel = None
    monkeypatch.setattr(module, info.function, counted)
    value, gradient = batch.loss(name), batch.gradient(name, **settings)
    assert len(calls) == 2 and None not in calls
    torch.testing.assert_close(value, plain(*batch.tensors, extras=batch.extras))
    monkeypatch.setattr(module, info.function, lambda *args, **kwargs: None)
    torch.testing.assert_close(gradient, batch.gradient(name, **settings))


def test_a_kernel_has_the_options_of_its_loss() -> None:
    for name in WITH_KERNEL:
        info = loss_info(name)
        kernel = getattr(importlib.import_module(str(info.kernel)), info.function)
        declared = getattr(importlib.import_module(info.module), info.function)
        assert kernel.__kwdefaults__ == declared.__kwdefaults__
        assert kernel.__code__.co_varnames[: kernel.__code__.co_argcount] == info.needs


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("jensen_shannon", {"teacher_weight": 0.001}),
        ("skew_kl", {"skew": 0.999}),
        ("alpha_beta", {"alpha": 0.0, "beta": 1.0}),
        ("alpha_beta", {"alpha": -0.5, "beta": 1.0}),
        ("amid", {"alpha": 1.0}),
        ("amid", {"divergence": "jensen_shannon"}),
    ],
)
def test_limits_are_left_to_the_loss(name: str, options: dict[str, Any]) -> None:
    kernel, _ = functions(name, options)
    assert kernel(*rows(name, 1.0, torch.float64)) is None


def test_a_tail_that_float32_cannot_hold_is_left_to_the_loss() -> None:
    """All but the stored token together have exp(-110): as a probability that rounds to 0."""
    student = torch.tensor([[110.0, 0.0, 0.0]])
    teacher = TopKRows(torch.tensor([[0]]), torch.tensor([[-0.1]]), torch.tensor([0.095]), 3)
    kernel, loss = functions("forward_kl", {})
    assert kernel(student, teacher) is None
    labels = torch.tensor([[-100, 0]])
    stored = torch.stack([student, student], dim=1)
    value = distillation_loss("forward_kl", stored, stored, labels, labels)
    assert value.item() == 0.0
    assert loss(student, teacher).item() == pytest.approx(0.095 * (110 + np.log(0.095 / 2)), 0.02)


# ULD: order, ties, lengths


@st.composite
def tied_rows(draw: st.DrawFn) -> tuple[Tensor, Tensor]:
    """Logits of a student and a teacher, few different values and so many ties."""
    value = st.one_of(st.integers(-3, 3).map(float), st.just(-60.0), st.floats(-2, 2, width=16))
    sides = []
    for size in (draw(st.integers(1, 40)), draw(st.integers(1, 40))):
        one = draw(st.lists(value, min_size=size, max_size=size))
        other = draw(st.lists(value, min_size=size, max_size=size))
        sides.append(torch.tensor([one, other], dtype=torch.float64))
    return sides[0], sides[1]


def by_ranks(student: Tensor, teacher: Teacher) -> tuple[Tensor, Tensor]:
    """ULD and its gradient by definition; of equal logits the first one ranks first."""
    q, order = student.softmax(-1).sort(descending=True, stable=True)
    if isinstance(teacher, TopKRows):
        p, tail = teacher.log_probs.exp(), teacher.dropped
    else:
        p, tail = teacher.softmax(-1).sort(descending=True).values, torch.zeros(len(student))
    width = max(p.shape[1], q.shape[1])
    p, q = (torch.nn.functional.pad(side, (0, width - side.shape[1])) for side in (p, q))
    # Equal up to rounding is equal: which side is ahead then makes no difference to the value.
    above = (p > q * (1 + 1e-13)).double()
    values = 2 * (above * (p - q)).sum(-1) + tail
    slopes = 2 * q * ((above * q).sum(-1, keepdim=True) - above)
    gradient = torch.zeros_like(student).scatter(-1, order, slopes[:, : student.shape[1]])
    return values, gradient


@given(tied_rows(), st.integers(1, 40))
@settings(max_examples=200)
def test_ties_are_ranked_as_they_stand(case: tuple[Tensor, Tensor], k: int) -> None:
    student, teacher = case
    stored = top_k(teacher, [min(k, teacher.shape[1])] * 2)
    kernel, _ = functions("uld", {})
    for given_teacher in (teacher, stored):
        values, gradient = kernel(student, given_teacher)
        expected, slopes = by_ranks(student, given_teacher)
        torch.testing.assert_close(values, expected, rtol=0, atol=1e-12)
        # A rank at which both sides agree up to rounding may count as either.
        if not _nearly_equal_somewhere(student, given_teacher):
            torch.testing.assert_close(gradient, slopes, rtol=0, atol=1e-12)


def _nearly_equal_somewhere(student: Tensor, teacher: Teacher) -> bool:
    q = student.softmax(-1).sort(descending=True).values
    stored = isinstance(teacher, TopKRows)
    p = teacher.log_probs.exp() if stored else teacher.softmax(-1).sort(descending=True).values
    common = min(p.shape[1], q.shape[1])
    return bool(torch.isclose(p[:, :common], q[:, :common], rtol=1e-12, atol=0).any())


@pytest.mark.parametrize("k", [30, 450])
def test_tied_logits_of_half_precision(k: int) -> None:
    """A few hundred different values among 600: every class and every block holds several."""
    student, teacher = (side.bfloat16().double() for side in rows("uld", 2.0, torch.float64))
    stored = top_k(teacher, [k] * 5)
    assert (k * FEW <= 600) == (k == 30)
    kernel, _ = functions("uld", {})
    found, expected = kernel(student, stored), by_ranks(student, stored)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


def test_models_that_nearly_agree_are_compared_value_by_value() -> None:
    """Classes alone would decide on no rank here."""
    torch.manual_seed(0)
    teacher = torch.randn(3, 400, dtype=torch.float64)
    student = teacher[:, torch.randperm(400)] + 1e-7 * torch.randn(3, 400)
    kernel, loss = functions("uld", {})
    found, expected = kernel(student, teacher), by_autograd(loss, student, teacher)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("stored", [False, True])
def test_the_tail_of_a_teacher_with_500_times_the_vocabulary_counts(stored: bool) -> None:
    """Each of 128,255 tokens has 1e-10, which is little beside 256 tokens of a student."""
    student, teacher = torch.full((1, 256), -40.0), torch.full((1, 128_256), -23.0)
    student[0, 0] = teacher[0, 0] = 0.0
    given = top_k(teacher, [128_256])
    kernel, _ = functions("uld", {})
    values, _ = kernel(student, given if stored else teacher)
    tail = 128_255 * np.exp(-23.0)
    assert values.item() == pytest.approx(2 * tail / (1 + tail), rel=0.02)  # 2.6e-5


def test_uld_of_what_is_not_a_number_is_not_a_number() -> None:
    student, teacher = rows("uld", 2.0, torch.float32)
    student[2, 5] = torch.nan
    kernel, _ = functions("uld", {})
    for given_teacher in (teacher, top_k(teacher, [30] * 5)):
        values, _ = kernel(student, given_teacher)
        assert values.isnan().tolist() == [False, False, True, False, False]


@pytest.mark.parametrize("kept", [None, 3, 30])
@pytest.mark.parametrize("width", [12, 30, 41])
def test_uld_sorts_to_the_same_result_elsewhere(kept: int | None, width: int) -> None:
    """What runs on a GPU, here on a CPU."""
    draw = torch.Generator().manual_seed(0)
    student = 2 * torch.randn(5, 30, generator=draw, dtype=torch.float64)
    teacher = 2 * torch.randn(5, width, generator=draw, dtype=torch.float64)
    student[2, 4:9] = teacher[3, 1:7] = -torch.inf
    given = teacher if kept is None else top_k(teacher, [min(kept, width)] * 5)
    values, gradient = by_sorting(student, given)
    leaf = student.clone().requires_grad_()
    expected = functions("uld", {})[1](leaf, given)
    expected.sum().backward()
    torch.testing.assert_close(values, expected.detach())
    torch.testing.assert_close(gradient, leaf.grad)


@pytest.mark.parametrize("kept", [None, 3])
def test_uld_takes_no_value_to_the_host_elsewhere_than_on_a_cpu(kept: int | None) -> None:
    """On the device `meta` there is none to be taken, nor to be converted to numpy."""
    teacher = torch.zeros(5, 40)
    given = teacher if kept is None else top_k(teacher, [kept] * 5)
    meta = teacher.to("meta")
    if isinstance(given, TopKRows):
        given = replace(
            given,
            ids=given.ids.to("meta"),
            log_probs=given.log_probs.to("meta"),
            dropped=given.dropped.to("meta"),
        )
    else:
        given = meta
    found = importlib.import_module("kd.losses.kernels.uld").uld(
        torch.zeros(5, 30, device="meta"), given, single_tokens(5)
    )
    assert found is not None
    assert found[0].shape == (5,) and found[1].shape == (5, 30)
    assert found[1].device.type == "meta"


@pytest.mark.parametrize(("width", "kept"), [(60, None), (60, 60), (200, 20)])
def test_uld_decides_close_calls_as_float64_does(width: int, kept: int | None) -> None:
    """At every rank both sides differ by rounding alone: each wrong sign would be seen."""
    draw = torch.Generator().manual_seed(0)
    student = 2 * torch.randn(5, width, generator=draw)
    teacher = (student + 3.7)[:, torch.randperm(width, generator=draw)]
    given = teacher if kept is None else top_k(teacher, [kept] * 5)
    kernel, loss = functions("uld", {})
    _, gradient = kernel(student, given)
    exact = student.double().requires_grad_()
    wide = given.double() if isinstance(given, Tensor) else given.cast(torch.float64)
    loss(exact, wide).sum().backward()
    assert exact.grad is not None
    off = (gradient - exact.grad).norm(dim=-1) / exact.grad.norm(dim=-1)
    assert off.max() < 1e-6


def test_a_part_of_a_batch_is_cut_down_to_its_own_longest_row() -> None:
    none = -np.inf
    rows = np.array([[-1.0, -2.0, none, none], [-1.0, none, none, none]])
    assert without_padding(rows).shape == (2, 2)
    assert without_padding(np.full((2, 3), none)).shape == (2, 1)
    assert without_padding(np.array([[-1.0, np.nan]])).shape == (1, 2)


finite = st.floats(-30, 0, width=32)


@given(st.lists(finite, min_size=1, max_size=60), st.lists(finite, min_size=1, max_size=60))
@pytest.mark.parametrize("number", [classes_for(100), classes_for(100_000)])
@settings(max_examples=200)
def test_lists_are_compared_rank_by_rank(
    number: int, first: list[float], second: list[float]
) -> None:
    one, other = np.array([first]), np.array([second])
    ours, theirs = compare(Ranked(one, 40.0, number), Ranked(other, 40.0, number))
    descending = [-np.sort(-side[0]) for side in (one, other)]
    width = max(len(first), len(second))
    padded = [np.pad(s, (0, width - len(s)), constant_values=-np.inf) for s in descending]
    above = padded[1] > padded[0]
    for side, states in ((one, ours), (other, theirs)):
        order = np.argsort(-side[0], kind="stable")
        assert (states[0, order] == above[: len(order)]).all()


def test_what_is_out_of_reach_counts_as_equal() -> None:
    values, shifts = np.array([[0.0, -5.0, -50.0, -60.0]]), np.array([0, 1, 10, 10])
    ours, _ = compare(Ranked(values, 40.0, 512), Ranked(values + shifts, 40.0, 512))
    assert ours.tolist() == [[0, 1, 0, 0]]


@given(st.lists(st.sampled_from([-np.inf, 0.0, 1.0, 2.0, 2.5]), min_size=1, max_size=70), st.data())
@settings(max_examples=100)
def test_the_largest_values_are_found_with_their_places(some: list[float], data: Any) -> None:
    values = np.array([some, some[::-1]])
    count = data.draw(st.integers(1, len(some)))
    found, columns = leading(values, count)
    order = np.argsort(-values, axis=-1, kind="stable")[:, :count]
    assert (found == np.take_along_axis(values, order, -1)).all()
    real = found > -np.inf
    assert (columns[real] == order[real]).all()


# Rows of padded batches


@pytest.mark.parametrize("contiguous", [True, False])
@pytest.mark.parametrize(
    ("sequence", "position", "shared"),
    [
        ([1, 1, 1], [2, 3, 4], True),
        ([0, 0, 1, 1], [3, 4, 0, 1], True),
        ([1], [0], True),
        ([0, 0, 1], [2, 4, 0], False),
        ([1, 1, 1], [1, 1, 3], False),
        ([], [], False),
    ],
)
def test_rows_that_follow_each_other_are_not_copied(
    sequence: list[int], position: list[int], shared: bool, contiguous: bool
) -> None:
    table = torch.randn(2, 6, 3)[:, : 5 + 0 * contiguous]
    table = table.contiguous() if contiguous else table
    places = torch.tensor(sequence, dtype=torch.int64), torch.tensor(position, dtype=torch.int64)
    found = select_rows(table, *places)
    assert torch.equal(found, table[places])
    same = found.untyped_storage().data_ptr() == table.untyped_storage().data_ptr()
    assert same == (shared and contiguous)
