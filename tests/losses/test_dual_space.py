"""Dual-space distillation: its three terms by themselves, what they train, and its rows."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from kd.alignment import AnswerTokens, chunks, truncate
from kd.alignment.student import student_rows
from kd.errors import LossError
from kd.losses.answers import Answers
from kd.losses.dual_space import (
    DualSpace,
    DualSpaceAttention,
    common_tokens,
    in_student_space,
    in_teacher_space,
    normed,
    read_out,
    token_vectors,
)
from kd.losses.features import AlignedFeatures, Features, ModelFeatures
from kd.losses.rows import AnswerRows
from kd.losses.setup import Models, ModelSide, Vocabularies
from tests.losses.batches import cross_tokenizer

WORDS = ["a", "b", "c", "d", "e", "f", "g"]
ONE = (1.0, 1.0)


def divergence(p: Tensor, q: Tensor) -> Tensor:
    """KL(p || q) of logits."""
    log_p, log_q = p.log_softmax(-1), q.log_softmax(-1)
    return (log_p.exp() * (log_p - log_q)).sum(-1)


def side(vocabulary: int, size: int, seed: int, scale: float = 1.0) -> ModelSide:
    generator = torch.Generator().manual_seed(seed)
    output = torch.randn(vocabulary, size, generator=generator, dtype=torch.float64)
    return ModelSide((size,) * 3, output=output, scale=scale)


def answers(targets: list[list[int]]) -> Answers:
    """Answers whose tokens are predicted at positions 0, 1, …"""
    lengths = torch.tensor([len(row) for row in targets])
    return Answers(
        sequence=torch.repeat_interleave(torch.arange(len(targets)), lengths),
        position=torch.cat([torch.arange(len(row)) for row in targets]),
        targets=torch.tensor([token for row in targets for token in row]),
        lengths=lengths,
        ends=None,
    )


def at_one_position(student: Tensor, teacher: Tensor) -> AlignedFeatures:
    """Last hidden states [N, Ds] and [N, Dt] of one sequence of N tokens on either side."""
    own = answers([[0] * len(student)])
    tokens = AnswerTokens(own.lengths)
    features = Features(ModelFeatures((student[None],)), ModelFeatures((teacher[None],)))
    return AlignedFeatures(features, own, own, truncate(tokens, tokens))


@pytest.mark.parametrize("name", ["forward_kl", "reverse_kl"])
def test_identical_models_keep_the_first_term_alone(name: str) -> None:
    """Full-rank output layers: both projections begin as the identity."""
    model = side(7, 3, seed=0)
    words = Vocabularies(WORDS, WORDS)
    loss = DualSpace(Models(model, model), words, divergence=name).double()
    torch.testing.assert_close(loss.to_student.detach(), torch.eye(3).double(), atol=1e-5, rtol=0)
    hidden = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)
    logits = hidden @ model.output.T
    targets = logits.argmax(-1)
    values = loss(logits, logits.detach(), targets, at_one_position(hidden, hidden), ONE)
    expected = torch.nn.functional.cross_entropy(logits, targets, reduction="none")
    torch.testing.assert_close(values, expected, rtol=1e-5, atol=1e-5)
    values.sum().backward()
    assert hidden.grad is not None and hidden.grad.abs().max() < 1e-4


def test_the_three_terms_are_what_they_are_defined_as() -> None:
    torch.manual_seed(0)
    student, teacher = torch.randn(2, 4, 7).double(), torch.randn(2, 4, 9).double()
    projected, projected_student = torch.randn(4, 7).double(), torch.randn(4, 9).double()
    targets = projected.argmax(-1)
    targets[3] = (targets[3] + 1) % 7  # the last one is not predicted
    own = torch.nn.functional.cross_entropy(projected, targets, reduction="none")
    predicts = torch.tensor([1.0, 1.0, 1.0, 0.0])
    for name, distance in (
        ("forward_kl", divergence(projected / 2, student[0])),
        ("reverse_kl", divergence(student[0], projected / 2)),
    ):
        values = in_student_space(projected, student[0], targets, 2.0, name)
        torch.testing.assert_close(values, own + predicts * distance)
    values = in_teacher_space(projected_student, teacher[0], 3.0)
    torch.testing.assert_close(values, divergence(teacher[0], projected_student / 3))


def test_each_term_trains_its_own_part() -> None:
    """The student: logits from the second term, states from the third; P from the first."""
    torch.manual_seed(0)
    models = Models(side(7, 3, seed=1), side(9, 4, seed=2))
    loss = DualSpace(models, Vocabularies(WORDS, [*WORDS, "h", "i"])).double()
    own, other = torch.randn(4, 3).double().requires_grad_(), torch.randn(4, 4).double()
    student, teacher = torch.randn(4, 7).double().requires_grad_(), torch.randn(4, 9).double()
    projected = read_out(other @ loss.to_student.T, models.student)
    targets = projected.argmax(-1)
    values = loss(student, teacher, targets, at_one_position(own, other), ONE)
    values.sum().backward()
    first = torch.nn.functional.cross_entropy(projected, targets, reduction="sum")
    second = divergence(projected.detach(), student).sum()
    third = divergence(teacher, read_out(own @ loss.to_teacher.T, models.teacher)).sum()
    torch.testing.assert_close(values.sum(), first + second + third)
    leaves = (loss.to_student, student, loss.to_teacher, own)
    trained = [leaf.grad for leaf in leaves]
    expected = [
        *torch.autograd.grad(first, loss.to_student),
        *torch.autograd.grad(second, student),
        *torch.autograd.grad(third, (loss.to_teacher, own)),
    ]
    for found, right in zip(trained, expected, strict=True):
        assert found is not None
        torch.testing.assert_close(found, right)


def test_a_pair_of_several_tokens_counts_as_zero() -> None:
    """Texts cut at bytes 3, 7, 9 and at 3, 9: the second chunk is two tokens and one."""
    torch.manual_seed(0)
    models = Models(side(7, 3, seed=1), side(9, 4, seed=2))
    loss = DualSpace(models, Vocabularies(WORDS, WORDS)).double()
    own, other = torch.randn(3, 3).double(), torch.randn(2, 4).double()
    student, teacher = torch.randn(2, 7).double(), torch.randn(2, 9).double()
    features = AlignedFeatures(
        Features(ModelFeatures((own[None],)), ModelFeatures((other[None],))),
        answers([[0, 1, 2]]),
        answers([[3, 4]]),
        chunks(
            AnswerTokens(torch.tensor([3]), torch.tensor([3, 7, 9])),
            AnswerTokens(torch.tensor([2]), torch.tensor([3, 9])),
        ),
    )
    targets = torch.tensor([0, 2])
    values = loss(student, teacher, targets, features, ONE)
    alone = at_one_position(own[:1], other[:1])
    single = loss(student[:1], teacher[:1], targets[:1], alone, ONE)
    torch.testing.assert_close(values, torch.cat([single, torch.zeros(1).double()]))
    assert single > 0


def test_impossible_tokens_change_nothing() -> None:
    """Columns of -inf in the models' logits are impossible for what is projected as well."""
    torch.manual_seed(0)
    logits, projected = torch.randn(2, 4, 7).double()
    wide = torch.nn.functional.pad(logits, (0, 2), value=-torch.inf).requires_grad_()
    reach = torch.cat([projected, torch.full((4, 2), 9.0)], dim=-1)
    targets = projected.argmax(-1)
    for name in ("forward_kl", "reverse_kl"):
        values = in_student_space(reach, wide, targets, 1.0, name)
        torch.testing.assert_close(values, in_student_space(projected, logits, targets, 1.0, name))
        (gradient,) = torch.autograd.grad(values.sum(), wide)
        assert gradient.isfinite().all() and not gradient[:, 7:].any()
    torch.testing.assert_close(
        in_teacher_space(reach, wide.detach(), 1.0), in_teacher_space(projected, logits, 1.0)
    )


def test_common_tokens_are_those_of_equal_text() -> None:
    own, other = common_tokens(Vocabularies(["a", None, "b", "a"], ["b", "c", "a", None, "b"]))
    assert sorted(zip(own.tolist(), other.tolist(), strict=True)) == [(0, 2), (2, 0)]
    assert common_tokens(Vocabularies(["a"], ["b"]))[0].tolist() == []


def test_the_scale_of_an_output_layer_counts() -> None:
    plain, scaled = side(7, 3, seed=1), side(7, 3, seed=1, scale=0.5)
    hidden = torch.randn(2, 3).double()
    torch.testing.assert_close(read_out(hidden, scaled), 0.5 * hidden @ plain.output.T)
    words, teacher = Vocabularies(WORDS, WORDS), side(7, 4, seed=2)
    projections = [
        DualSpace(Models(model, teacher), words).to_student.detach() for model in (plain, scaled)
    ]
    torch.testing.assert_close(projections[1], 2 * projections[0])


# --- with attention -------------------------------------------------------------------------


def attended(
    own: list[list[int]], other: list[list[int]], seed: int = 0
) -> tuple[DualSpaceAttention, AnswerRows, AlignedFeatures]:
    torch.manual_seed(seed)
    models = Models(side(7, 3, seed=1), side(9, 4, seed=2))
    sides = answers(own), answers(other)
    rows, length = len(own), max(len(row) for row in (*own, *other))
    hidden = [torch.randn(rows, length, size).double() for size in (3, 4)]
    features = Features(*(ModelFeatures((states,)) for states in hidden))
    logits = torch.randn(len(sides[0].targets), 7).double(), torch.randn(len(sides[1].targets), 9)
    tokens = [AnswerTokens(part.lengths) for part in sides]
    aligned = AlignedFeatures(features, *sides, student_rows(*tokens))
    answer_rows = AnswerRows(
        student=logits[0],
        teacher=logits[1].double(),
        student_lengths=sides[0].lengths,
        teacher_lengths=sides[1].lengths,
        student_tokens=sides[0].targets,
        teacher_answers=None,  # type: ignore[arg-type]  # not read
    )
    return DualSpaceAttention(models).double(), answer_rows, aligned


def test_a_single_token_on_either_side_attends_to_its_only_partner() -> None:
    loss, rows, features = attended([[2]], [[5]])
    models, teacher = loss._models, features.features.teacher.hidden[0][0]
    values = normed(teacher) + normed(models.teacher.output[[5]])
    projected = read_out(values @ loss.to_student.T, models.student)
    own = features.features.student.hidden[0][0]
    projected_student = read_out(own @ loss.to_teacher.T, models.teacher)
    expected = in_student_space(
        projected, rows.student, torch.tensor([2]), 1.0, "forward_kl"
    ) + in_teacher_space(projected_student, rows.teacher, 1.0)
    torch.testing.assert_close(loss(rows, features, ONE), expected)


def test_attention_is_a_softmax_over_the_other_answer() -> None:
    loss, rows, features = attended([[2, 3]], [[5, 1, 7]])
    models = loss._models
    own = token_vectors(models.student.output, features.own.targets, features.own.lengths)
    other = token_vectors(models.teacher.output, features.other.targets, features.other.lengths)
    scores = (own @ loss.query.T) @ normed(other).T / 8**0.5
    teacher, student = (
        features.features.teacher.hidden[0][0],
        features.features.student.hidden[0][0],
    )
    offered = (normed(teacher) + normed(other[:, 4:])) @ loss.to_student.T
    first = in_student_space(
        read_out(scores.softmax(1) @ offered, models.student),
        rows.student,
        features.own.targets,
        1.0,
        "forward_kl",
    )
    states = scores.T.softmax(1) @ (student[:2] @ loss.to_teacher.T)
    third = in_teacher_space(read_out(states, models.teacher), rows.teacher, 1.0)
    torch.testing.assert_close(loss(rows, features, ONE), first + third.sum() / 2)


def test_sequences_do_not_mix_and_need_both_answers() -> None:
    loss, rows, features = attended([[2, 3], [4], [1]], [[5, 1], [], [7, 7]])
    values = loss(rows, features, ONE)
    assert len(values) == 3 and features.pairs.sequence.tolist() == [0, 0, 2]
    for b, kept in ((0, slice(0, 2)), (2, slice(2, 3))):
        own, other = features.own.sequence == b, features.other.sequence == b
        sides = [
            replace(
                part,
                sequence=part.sequence[mask] * 0,
                position=part.position[mask],
                targets=part.targets[mask],
                lengths=part.lengths[b : b + 1],
            )
            for part, mask in ((features.own, own), (features.other, other))
        ]
        tokens = [AnswerTokens(part.lengths) for part in sides]
        parts = [
            part.hidden[0][b : b + 1]
            for part in (features.features.student, features.features.teacher)
        ]
        single = AlignedFeatures(
            Features(*(ModelFeatures((part,)) for part in parts)), *sides, student_rows(*tokens)
        )
        alone = replace(rows, student=rows.student[own], teacher=rows.teacher[other])
        torch.testing.assert_close(loss(alone, single, ONE), values[kept])


def test_a_token_is_told_by_itself_and_the_one_before() -> None:
    output = torch.arange(10.0).reshape(5, 2)
    found = token_vectors(output, torch.tensor([3, 1, 4]), torch.tensor([2, 0, 1]))
    assert found.tolist() == [[0, 0, 6, 7], [6, 7, 2, 3], [0, 0, 8, 9]]


def test_the_seed_decides_the_matrices() -> None:
    models = Models(side(7, 3, seed=1), side(9, 4, seed=2))
    first, again, other = (DualSpaceAttention(models, seed=seed).query for seed in (1, 1, 2))
    assert torch.equal(first, again) and not torch.equal(first, other)


def test_an_unknown_divergence_is_refused() -> None:
    with pytest.raises(LossError, match="'divergence' is 'kl'"):
        cross_tokenizer().loss("dual_space", divergence="kl")
