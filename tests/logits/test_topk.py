"""Which tokens of a distribution are kept."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from kd.errors import ArtifactError
from kd.logits import AnswerBatch, TeacherRow, collate, keep_top_k


def keep(logits: Tensor, epsilon: float = 0.0, cap: int | None = None) -> TeacherRow:
    count = len(logits)
    return keep_top_k(
        "row",
        torch.arange(count) % logits.shape[-1],
        logits,
        ends=torch.arange(count) + 3,
        epsilon=epsilon,
        cap=cap,
    )


Logits = st.lists(
    st.lists(st.floats(-20, 20) | st.just(-torch.inf), min_size=6, max_size=6).filter(
        lambda row: max(row) > -torch.inf
    ),
    min_size=1,
    max_size=4,
).map(lambda rows: torch.tensor(rows, dtype=torch.float64))


@given(Logits, st.sampled_from([0.0, 1e-6, 1e-3, 0.1, 0.5]), st.none() | st.integers(1, 6))
@settings(deadline=None, derandomize=True)
def test_the_fewest_tokens_that_leave_at_most_epsilon_are_kept(
    logits: Tensor, epsilon: float, cap: int | None
) -> None:
    row, probs = keep(logits, epsilon, cap), logits.softmax(-1)
    for token, (start, stop) in enumerate(zip(row.offsets[:-1], row.offsets[1:], strict=True)):
        ids, kept = row.ids[start:stop].long(), row.log_probs[start:stop]
        count = len(ids)
        others = probs[token].clone()
        others[ids] = 0
        assert len(set(ids.tolist())) == count and 1 <= count <= (cap or 6)
        assert (kept.diff() <= 0).all() and others.max() <= probs[token][ids[-1]]
        torch.testing.assert_close(kept.double().exp(), probs[token][ids], rtol=1e-5, atol=1e-30)
        assert row.dropped[token].item() == pytest.approx(others.sum().item(), rel=2e-5, abs=1e-15)
        assert row.dropped[token].double() >= others.sum() * (1 - 1e-6)  # rounded up
        assert count == cap or others.sum() <= epsilon * (1 + 1e-9) + 1e-15
        one_less = others.sum() + probs[token][ids[-1]]
        assert count == 1 or one_less > epsilon * (1 - 1e-9)


def test_nothing_possible_is_dropped_at_epsilon_zero() -> None:
    row = keep(torch.tensor([[0.0, -torch.inf, -700.0], [1.0, 2.0, 3.0]]))
    assert row.offsets.tolist() == [0, 2, 5] and row.dropped.tolist() == [[0.0], [0.0]]
    assert row.ids.tolist() == [0, 2, 2, 1, 0]


def test_equal_probabilities_are_ordered_by_token_id() -> None:
    assert keep(torch.zeros(1, 50), cap=5).ids.tolist() == [0, 1, 2, 3, 4]


def test_the_selection_does_not_depend_on_the_other_tokens_of_the_batch() -> None:
    torch.manual_seed(0)
    logits = 3 * torch.randn(33, 1000)
    together = keep(logits, epsilon=1e-2)
    for token in range(33):
        alone = keep(logits[token : token + 1], epsilon=1e-2)
        entries = slice(together.offsets[token], together.offsets[token + 1])
        assert torch.equal(alone.ids, together.ids[entries])
        assert torch.equal(alone.log_probs, together.log_probs[entries])
        assert torch.equal(alone.dropped, together.dropped[token : token + 1])


def test_bad_logits_are_refused_by_row_and_token() -> None:
    for bad in (torch.nan, torch.inf):
        with pytest.raises(ArtifactError, match=r"row 'row'.*answer token 1"):
            keep(torch.tensor([[0.0, 1.0], [0.0, bad]]))
    with pytest.raises(ArtifactError, match="answer token 0"):
        keep(torch.full((1, 3), -torch.inf))
    two, three = torch.zeros(2), torch.zeros(3)
    for tokens, ends in ((two, three), (three, two)):
        with pytest.raises(ArtifactError, match=f"{len(tokens)} answer tokens.*{len(ends)} ends"):
            keep_top_k("row", tokens, torch.zeros(3, 4), ends=ends, epsilon=0.0, cap=None)


def test_the_answers_own_token_is_known_exactly_whether_it_is_kept_or_not() -> None:
    torch.manual_seed(0)
    logits = 3 * torch.randn(5, 9, dtype=torch.float64)
    row = keep(logits, cap=1)
    own = logits.log_softmax(-1)[range(5), range(5)]
    assert (row.ids != torch.arange(5)).any()
    torch.testing.assert_close(row.token_log_probs.double(), own, rtol=1e-6, atol=0)
    assert row.ends.tolist() == [3, 4, 5, 6, 7]


def test_collate_pads_tokens_and_entries() -> None:
    first = keep(torch.tensor([[0.0, 1.0, 2.0], [9.0, 0.0, 0.0]]), epsilon=0.1)
    second = keep(torch.tensor([[3.0, 2.0, 1.0]]))
    batch = collate([first, second])
    assert batch.ids.shape == (2, 2, 3) and batch.vocabulary == 3
    assert batch.lengths.tolist() == [2, 1]
    assert batch.ids[0].tolist() == [[2, 1, 0], [0, 0, 0]] and batch.dropped[0, 0] > 0
    mass = batch.log_probs.exp().sum(-1) + batch.dropped
    torch.testing.assert_close(mass, torch.tensor([[1.0, 1.0], [1.0, 0.0]]))
    assert batch.ids[1, 0].tolist() == [0, 1, 2] and batch.log_probs[1, 1].max() == -torch.inf
    assert batch.own_tokens().tolist() == [0, 1, 0]
    assert batch.ends is not None and batch.ends.tolist() == [3, 4, 3]
    own = torch.cat([first.token_log_probs, second.token_log_probs])
    assert torch.equal(batch.own_log_probs(torch.arange(3), 1.0), own)


def test_rows_of_two_teachers_form_no_batch() -> None:
    with pytest.raises(ArtifactError, match="2 vocabularies"):
        collate([keep(torch.zeros(1, 3)), keep(torch.zeros(1, 4))])
    with pytest.raises(ArtifactError, match="0 vocabularies"):
        collate([])


def test_rows_of_stores_that_hold_different_things_form_no_batch() -> None:
    one = keep(torch.zeros(1, 3))
    for name, other in (
        ("temperatures", replace(one, temperatures=(2.0,), dropped=one.dropped.repeat(1, 2))),
        ("draws", replace(one, draws=7)),
        ("token ids", replace(one, ids=None, token_ids=None)),
    ):
        with pytest.raises(ArtifactError, match=f"different {name} cannot form a batch"):
            collate([one, other])


def test_lengths_and_tokens_that_do_not_fit_the_logits_are_refused() -> None:
    tokens, ends = torch.zeros(3, dtype=torch.int64), torch.tensor([1, 1, 2])
    logits = torch.zeros(3, 5)
    for lengths in ([1, 1], [3], [1, 3]):
        with pytest.raises(ArtifactError, match=f"add up to {sum(lengths)} of 3 answer tokens"):
            AnswerBatch(["x", "y"], lengths, tokens, ends).check(logits)
    AnswerBatch(["x", "y"], [1, 2], tokens, ends).check(logits)
    for bad in (-1, 5):
        with pytest.raises(ArtifactError, match="not among the 5"):
            AnswerBatch(["x", "y"], [1, 2], tokens + bad, ends).check(logits)
