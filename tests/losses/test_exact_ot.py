"""Optimal transport under three costs: values, bounds, gradients, refusals."""

import math
from collections.abc import Callable
from functools import partial

import ot
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from kd.errors import LossError
from kd.losses import transport
from kd.losses.exact_ot import EditDistanceTransport, EmbeddingTransport, ot_uniform
from kd.losses.setup import Embeddings, Vocabularies
from kd.losses.teacher import Teacher, TopKRows
from kd.losses.transport import Costs, Solver
from kd.losses.transport_costs import EditDistanceCosts, EmbeddingCosts, relative_edit_distances
from tests.losses.batches import uld

STUDENT = ["a", " a", "ab", "the", " the", None]
TEACHER = ["a", "b", " the", "they", None, "é", ""]
Loss = Callable[[Tensor, Teacher], Tensor]


@st.composite
def problems(draw: st.DrawFn) -> tuple[Tensor, Tensor, Costs]:
    """Logits of student and teacher, some -inf, and costs between 0 and 1."""
    sides, random = [], torch.Generator().manual_seed(draw(st.integers(0, 2**30)))
    for _ in range(2):
        width = draw(st.integers(1, 9))
        values = draw(st.lists(st.floats(-9, 9, width=16), min_size=width, max_size=width))
        holes = draw(st.lists(st.booleans(), min_size=width, max_size=width))
        holes[0] = False
        logits = torch.tensor([values], dtype=torch.float64)
        sides.append(logits.masked_fill(torch.tensor([holes]), -torch.inf))
    student, teacher = sides
    table = torch.rand(
        teacher.shape[1], student.shape[1], generator=random, dtype=torch.float64
    ).clamp(0.2, 0.8)
    return student, teacher, between((table - 0.2) / 0.6)


def between(table: Tensor) -> Costs:
    return lambda teacher, student: table[teacher[:, :, None], student[:, None, :]]


def top_k(logits: Tensor, k: int) -> TopKRows:
    """The k likeliest, with two entries of padding."""
    values, ids = logits.softmax(-1).sort(descending=True)
    pad = torch.nn.functional.pad
    stored = pad(values[:, :k].log(), (0, 2), value=-torch.inf)
    return TopKRows(pad(ids[:, :k], (0, 2)), stored, values[:, k:].sum(-1), logits.shape[-1])


def exact(support: int = 0) -> Solver:
    return Solver(support, "exact", 1.0)


# --- values ---------------------------------------------------------------------------------


@given(problems())
@settings(max_examples=50)
def test_the_value_is_that_of_the_linear_programme(problem: tuple[Tensor, Tensor, Costs]) -> None:
    student, teacher, costs = problem
    ids = [torch.arange(side.shape[1])[None] for side in (teacher, student)]
    probs = [side[0].softmax(-1).numpy() for side in (teacher, student)]
    expected = ot.emd2(*probs, costs(*ids)[0].numpy())
    found = exact().transport(student, teacher, costs)
    assert found.item() == pytest.approx(expected, abs=1e-12)


@given(problems())
@settings(max_examples=50)
def test_a_uniform_cost_between_ranks_is_half_of_uld(problem: tuple[Tensor, Tensor, Costs]) -> None:
    student, teacher, _ = problem
    found = ot_uniform(student, teacher, support=0)
    torch.testing.assert_close(2 * found, uld(student, teacher), rtol=0, atol=1e-12)


@given(problems(), st.integers(1, 9))
@settings(max_examples=50)
def test_so_it_is_on_a_truncated_teacher(problem: tuple[Tensor, Tensor, Costs], k: int) -> None:
    student, teacher, _ = problem
    stored = top_k(teacher, k)
    found = ot_uniform(student, stored, support=0)
    torch.testing.assert_close(2 * found, uld(student, stored), rtol=0, atol=1e-12)


def test_edit_distances_by_hand() -> None:
    """0.5 stays at "ab", 0.1 goes from "ab" to "b" (1/2) and 0.4 from "the" to "b" (3/3)."""
    loss = EditDistanceTransport(Vocabularies(student=["ab", "b"], teacher=["ab", "the"]))
    student, teacher = torch.tensor([[0.5, 0.5]]).log(), torch.tensor([[0.6, 0.4]]).log()
    assert loss(student, teacher).item() == pytest.approx(0.1 / 2 + 0.4, rel=1e-6)


def test_embedding_distances_by_hand() -> None:
    """Around the teacher's mean (0, 0) the radii are 2 and 3; 0.3 goes from (3, 0) to (-2, 0)."""
    embeddings = Embeddings(
        student=torch.tensor([[2.0, 0.0], [-2.0, 0.0]]),
        teacher=torch.tensor([[3.0, 0.0], [-3.0, 0.0]]),
    )
    student, teacher = torch.tensor([[0.4, 0.6]]).log(), torch.tensor([[0.7, 0.3]]).log()
    found = EmbeddingTransport(embeddings)(student, teacher)
    assert found.item() == pytest.approx((0.4 * 1 + 0.3 * 5 + 0.3 * 1) / 5, rel=1e-6)


def test_unlike_uld_it_knows_which_token_is_which() -> None:
    torch.manual_seed(0)
    student = torch.randn(3, len(STUDENT)).double()
    swapped = student[:, [3, 1, 2, 0, 4, 5]]
    loss = EditDistanceTransport(Vocabularies(STUDENT, STUDENT))
    assert (loss(swapped, student) > 0.01).all() and (uld(swapped, student) < 1e-12).all()


def losses(support: int = 0) -> dict[str, Loss]:
    """All three, for one vocabulary of six tokens."""
    own = torch.randn(6, 3, generator=torch.Generator().manual_seed(1)).double()
    return {
        "uniform": partial(ot_uniform, support=support),
        "edit distance": EditDistanceTransport(Vocabularies(STUDENT, STUDENT), support=support),
        "embedding": EmbeddingTransport(Embeddings(own, own), support=support),
    }


@pytest.mark.parametrize("name", losses())
@pytest.mark.parametrize("support", [0, 2])
@pytest.mark.parametrize("shift", [0.0, 0.37])
def test_identical_models_give_zero_with_a_zero_gradient(
    name: str, support: int, shift: float
) -> None:
    """Even where both sides differ by rounding, as after a shift."""
    torch.manual_seed(0)
    teacher = torch.randn(40, 6).double()
    student = (teacher + shift).requires_grad_()
    value = losses(support)[name](student, teacher)
    value.sum().backward()
    torch.testing.assert_close(value, torch.zeros(40).double(), rtol=0, atol=1e-14)
    assert torch.equal(student.grad, torch.zeros(40, 6).double())


def test_distributions_over_texts_that_agree_give_zero_with_a_zero_gradient() -> None:
    """However each side spreads a text's probability over the tokens that have it."""
    teacher = torch.tensor([[0.3, 0.2, 0.1, 0.3, 0.1]], dtype=torch.float64).log()
    student = torch.tensor([[0.1, 0.4, 0.3, 0.1, 0.1]], dtype=torch.float64).log()
    texts = ["a", "a", "by", "by", "c"]
    student.requires_grad_()
    value = EditDistanceTransport(Vocabularies(texts, texts))(student, teacher)
    value.sum().backward()
    assert value.item() == pytest.approx(0.0, abs=1e-14)
    assert torch.equal(student.grad, torch.zeros(1, 5).double())


@pytest.mark.parametrize("name", losses())
@pytest.mark.parametrize("support", [0, 2])
def test_values_stay_between_zero_and_one_where_sides_disagree_entirely(
    name: str, support: int
) -> None:
    student = torch.tensor([[200.0, 0, 0, 0, 0, 0]], requires_grad=True)
    teacher = torch.tensor([[0.0, 0, 0, 0, 200.0, 0]])
    value = losses(support)[name](student, teacher)
    value.sum().backward()
    assert 0 <= value.item() <= 1 and student.grad.isfinite().all()


# --- bounds ---------------------------------------------------------------------------------


@given(problems(), st.integers(1, 9), st.sampled_from(["exact", "sinkhorn"]))
@settings(max_examples=50, deadline=None)
def test_what_is_left_out_moves_the_value_by_half_its_mass_at_most(
    problem: tuple[Tensor, Tensor, Costs], support: int, solver: str
) -> None:
    student, teacher, costs = problem
    full, part = (
        Solver(size, solver, 0.1).transport(student, teacher, costs) for size in (0, support)
    )
    left = sum(
        side.softmax(-1).sort(descending=True).values[:, support:].sum()
        for side in (student, teacher)
    )
    assert (full - part).abs().item() <= left / 2 + 1e-6


@given(problems(), st.integers(1, 9), st.integers(0, 9), st.sampled_from(["exact", "sinkhorn"]))
@settings(max_examples=50, deadline=None)
def test_the_bound_on_a_truncated_teacher_is_never_violated(
    problem: tuple[Tensor, Tensor, Costs], k: int, support: int, solver: str
) -> None:
    student, teacher, costs = problem
    stored = top_k(teacher, k)
    whole, truncated = (
        Solver(support, solver, 0.1).transport(student, given, costs) for given in (teacher, stored)
    )
    assert (whole - truncated).abs().item() <= stored.dropped.item() / 2 + 1e-6


@pytest.mark.parametrize("support", [1, 2, 3])
def test_what_was_stored_beyond_the_support_belongs_to_the_rest(support: int) -> None:
    torch.manual_seed(0)
    student, teacher = torch.randn(2, 5).double(), torch.randn(2, 6).double()
    costs = between(torch.rand(6, 5).double())
    whole, truncated = (
        exact(support).transport(student, given, costs) for given in (teacher, top_k(teacher, 4))
    )
    torch.testing.assert_close(truncated, whole)


@pytest.mark.parametrize("cost", [0.0, 1.0])
def test_the_bound_on_a_truncated_teacher_is_reached(cost: float) -> None:
    """If all that was dropped belongs where it costs nothing, or the most."""
    student = torch.tensor([[0.6, 0.4]], dtype=torch.float64).log()
    teacher = torch.tensor([[0.6, 0.3, 0.1]], dtype=torch.float64).log()
    costs = between(torch.tensor([[0.0, 1.0], [1.0, cost], [1.0, cost]], dtype=torch.float64))
    stored = top_k(teacher, 1)
    error = exact().transport(student, teacher, costs) - exact().transport(student, stored, costs)
    torch.testing.assert_close(error, (cost - 0.5) * stored.dropped)


@given(problems(), st.sampled_from([0.02, 0.1, 1.0]))
@settings(max_examples=50, deadline=None)
def test_entropy_adds_at_most_its_weight_times_the_smaller_entropy(
    problem: tuple[Tensor, Tensor, Costs], weight: float
) -> None:
    student, teacher, costs = problem
    without = exact().transport(student, teacher, costs).item()
    regularised = Solver(0, "sinkhorn", weight).transport(student, teacher, costs).item()
    entropies = [torch.special.entr(side.softmax(-1)).sum().item() for side in (student, teacher)]
    assert without - 1e-3 * weight <= regularised <= without + weight * min(entropies) + 1e-9


# --- gradients ------------------------------------------------------------------------------


@pytest.mark.parametrize("solver", ["exact", "sinkhorn"])
@pytest.mark.parametrize("support", [0, 3])
@pytest.mark.parametrize("stored", [False, True])
def test_the_gradient_is_that_of_the_value(solver: str, support: int, stored: bool) -> None:
    torch.manual_seed(2)
    student, teacher = torch.randn(3, 5).double(), torch.randn(3, 7).double()
    given = top_k(teacher, 4) if stored else teacher
    costs = between(torch.rand(7, 5).double())
    solve = Solver(support, solver, 0.1)
    student.requires_grad_()
    assert torch.autograd.gradcheck(lambda z: solve.transport(z, given, costs), student)


@given(problems(), st.sampled_from(["exact", "sinkhorn"]), st.integers(0, 4))
@settings(max_examples=50, deadline=None)
def test_the_gradient_is_finite_and_sums_to_zero(
    problem: tuple[Tensor, Tensor, Costs], solver: str, support: int
) -> None:
    student, teacher, costs = problem
    student.requires_grad_()
    Solver(support, solver, 0.1).transport(student, teacher, costs).sum().backward()
    assert student.grad.isfinite().all()
    assert student.grad.sum().abs() <= 1e-12


def test_rows_are_solved_one_by_one_whatever_their_number(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(3)
    student, teacher = torch.randn(7, 5).double(), torch.randn(7, 6).double()
    costs = between(torch.rand(6, 5).double())
    together = exact().transport(student, teacher, costs)
    monkeypatch.setattr(transport, "ENTRIES", 1)
    assert torch.equal(exact().transport(student, teacher, costs), together)


def test_float32_probabilities_that_miss_one_are_no_obstacle() -> None:
    torch.manual_seed(4)
    student, teacher = torch.randn(2, 5000), torch.randn(2, 6000)
    low = ot_uniform(student, teacher)
    high = ot_uniform(student.double(), teacher.double())
    assert low.dtype == torch.float32
    torch.testing.assert_close(low.double(), high, rtol=1e-5, atol=1e-6)


def test_a_model_that_has_diverged_gives_nan() -> None:
    assert ot_uniform(torch.full((1, 3), math.nan), torch.zeros(1, 4)).isnan().all()


# --- costs ----------------------------------------------------------------------------------


def test_edit_distances_are_shares_of_the_longer_text() -> None:
    expected = [[3 / 7, 0.0, 1.0], [1.0, 6 / 6, 1.0], [1.0, 1.0, 0.0]]
    found = relative_edit_distances(["kitten", "", None], ["sitting", "kitten", None])
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64))
    assert relative_edit_distances([""], [""]).item() == 0.0


def test_columns_beyond_a_vocabulary_have_no_text_and_no_embedding() -> None:
    ids = torch.tensor([[0, 9]])
    texts = EditDistanceCosts(Vocabularies(student=["a"], teacher=[""]))(ids, ids)
    torch.testing.assert_close(texts, torch.tensor([[[1.0, 1.0], [1.0, 0.0]]]).double())
    places = EmbeddingCosts(Embeddings(torch.ones(2, 1), torch.tensor([[0.0], [4.0]])))(ids, ids)
    torch.testing.assert_close(places, torch.tensor([[[1 / 3, 2 / 3], [1 / 3, 0.0]]]))


@given(st.floats(0.01, 100), st.floats(-10, 10), st.integers(0, 1000))
@settings(max_examples=25)
def test_embedding_costs_know_neither_scale_nor_origin(
    scale: float, shift: float, seed: int
) -> None:
    random = torch.Generator().manual_seed(seed)
    student, teacher = (torch.randn(size, 4, generator=random).double() for size in (5, 6))
    ids = torch.arange(6)[None], torch.arange(5)[None]
    costs = EmbeddingCosts(Embeddings(student, teacher))(*ids)
    moved = Embeddings(scale * student + shift, scale * teacher + shift)
    torch.testing.assert_close(EmbeddingCosts(moved)(*ids), costs)
    assert (costs >= 0).all() and (costs <= 1).all()


def test_equal_embeddings_cost_nothing_at_all() -> None:
    torch.manual_seed(0)
    rows = 100 + torch.randn(60, 16)
    ids = torch.arange(60)[None]
    costs = EmbeddingCosts(Embeddings(rows, rows))(ids, ids)
    assert torch.equal(costs[0].diagonal(), torch.zeros(60))


def test_embeddings_all_in_one_place_cost_nothing() -> None:
    costs = EmbeddingCosts(Embeddings(torch.ones(2, 3), torch.ones(2, 3)))
    assert torch.equal(costs(torch.tensor([[0, 1]]), torch.tensor([[0, 1]])), torch.zeros(1, 2, 2))


# --- refusals -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"solver": "sinkhorm"}, "sinkhorn"),
        ({"support": -1}, "support"),
        ({"regularisation": 0.0}, "regularisation"),
    ],
)
def test_undefined_options_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(LossError, match=message):
        ot_uniform(torch.zeros(1, 3), torch.zeros(1, 3), **options)
    with pytest.raises(LossError, match=message):
        EditDistanceTransport(Vocabularies(STUDENT, TEACHER), **options)


@pytest.mark.filterwarnings("ignore:numItermax reached")
def test_a_solver_that_gives_up_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport, "PIVOTS", 1)
    torch.manual_seed(5)
    with pytest.raises(LossError, match="failed"):
        ot_uniform(torch.randn(1, 30), torch.randn(1, 30))
