"""Drawn tokens: unbiased, of the variance that is stated, and the same whatever is beside them."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from kd.logits import AnswerBatch, LogitReader, LogitWriter, TeacherRow, collate
from kd.logits.drawing import gradient_variance
from kd.losses import distillation_loss
from kd.losses.bounds import draw_variances
from kd.losses.distillation import load_loss

TOKENS, VOCABULARY, DRAWS = 3, 6, 20
LOGITS = 2 * torch.randn(TOKENS, VOCABULARY, generator=torch.Generator().manual_seed(0)).double()
TRUTH = LOGITS.softmax(-1)


def drawn(folder: Path, seed: int, rows: int = 1) -> list[TeacherRow]:
    """Rows that were drawn from the same distributions, under ids of their own."""
    with LogitWriter(folder, vocabulary=VOCABULARY, draws=DRAWS, seed=seed) as writer:
        answers = AnswerBatch(
            [f"row-{number}" for number in range(rows)],
            [TOKENS] * rows,
            torch.tensor([1, 0, 5] * rows),
            torch.tensor([1, 2, 3] * rows),
        )
        writer.add_batch(answers, LOGITS.repeat(rows, 1))
    reader = LogitReader(folder)
    return [reader[row_id] for row_id in reader]


def shares(row: TeacherRow) -> Tensor:
    """What was drawn of each token, [T, V]."""
    assert row.ids is not None
    table = torch.zeros(TOKENS, VOCABULARY, dtype=torch.float64)
    at = torch.repeat_interleave(torch.arange(TOKENS), row.offsets.diff())
    table[at, row.ids.long()] = row.log_probs.double().exp()
    return table


def test_shares_are_unbiased_and_of_the_stated_variance(tmp_path: Path) -> None:
    rows = drawn(tmp_path / "store", seed=0, rows=3000)
    found = torch.stack([shares(row) for row in rows])
    assert found.sum(-1).sub(1).abs().max() < 1e-5
    standard_error = (TRUTH * (1 - TRUTH) / DRAWS / len(rows)).sqrt()
    assert ((found.mean(0) - TRUTH).abs() <= 4.5 * standard_error + 1e-6).all()
    expected = (1 - TRUTH.square().sum(-1)) / DRAWS
    squared = (found - TRUTH).square().sum(-1).mean(0)
    torch.testing.assert_close(squared, expected, rtol=0.1, atol=0)
    stated = torch.stack([torch.from_numpy(gradient_variance(row)) for row in rows]).mean(0)
    torch.testing.assert_close(stated, expected, rtol=0.05, atol=0)


def test_forward_kl_and_its_gradient_are_unbiased(tmp_path: Path) -> None:
    rows = drawn(tmp_path / "store", seed=1, rows=2000)
    generator = torch.Generator().manual_seed(2)
    student = torch.randn(1, TOKENS + 1, VOCABULARY, generator=generator).double()
    labels = torch.tensor([[-100, 1, 0, 5]])
    values, variances = [], []
    total = torch.zeros_like(student)
    loss = load_loss("forward_kl")
    for row in rows:
        logits = student.clone().requires_grad_()
        teacher = collate([row])
        value = loss(logits, teacher, labels)
        value.backward()
        assert logits.grad is not None
        total += logits.grad
        values.append(value.item())
        found = draw_variances(loss.align(logits.detach(), teacher, labels))
        assert found is not None
        variances.append(found.sum().item() / TOKENS**2)
    logits = student.clone().requires_grad_()
    dense = torch.zeros_like(student)
    dense[0, :TOKENS] = LOGITS
    exact = distillation_loss("forward_kl", logits, dense, labels, labels)
    exact.backward()
    spread = torch.tensor(values).var().item()
    assert abs(sum(values) / len(values) - exact.item()) < 4.5 * (spread / len(values)) ** 0.5
    assert sum(variances) / len(variances) == pytest.approx(spread, rel=0.15)
    assert logits.grad is not None
    torch.testing.assert_close(total / len(rows), logits.grad, rtol=0, atol=5e-3)


def test_a_row_is_drawn_alike_whatever_is_beside_it_and_differently_by_seed(tmp_path: Path) -> None:
    (alone,) = drawn(tmp_path / "alone", seed=3)
    first, second, *_ = drawn(tmp_path / "together", seed=3, rows=4)
    assert torch.equal(shares(alone), shares(first))
    assert not torch.equal(shares(first), shares(second))
    (other,) = drawn(tmp_path / "other", seed=4)
    assert not torch.equal(shares(alone), shares(other))


def test_what_is_impossible_is_never_drawn(tmp_path: Path) -> None:
    logits = torch.full((1, VOCABULARY), -torch.inf)
    logits[0, 2] = 0.0
    with LogitWriter(tmp_path / "store", vocabulary=VOCABULARY, draws=DRAWS) as writer:
        writer.add("a", torch.tensor([2]), logits, ends=torch.tensor([1]))
    row = LogitReader(tmp_path / "store")["a"]
    assert row.ids is not None and row.ids.tolist() == [2] and row.log_probs.tolist() == [0.0]
    assert row.entropies is not None and row.entropies.tolist() == [0.0]
    assert gradient_variance(row).tolist() == [0.0]
