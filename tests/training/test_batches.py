"""Batches: every row once an epoch, labels where they belong, teacher rows with their students."""

from dataclasses import replace

import pytest
import torch

from kd.errors import DataError
from kd.experiment.methods import Method
from kd.logits import LogitReader, LogitWriter
from kd.losses import distillation_loss
from kd.losses.ot import sorted_l1
from kd.models.offsets import encode_answer_with_ends
from kd.training.batches import IGNORED, Collator, batch_indices, epoch_order, steps_per_epoch
from kd.training.examples import build_examples, subset


def test_every_row_is_met_once_an_epoch_in_another_order():
    for epoch in range(3):
        steps = range(epoch * 3, epoch * 3 + 3)
        met = [index for step in steps for index in batch_indices(10, 4, seed=0, step=step)]
        assert sorted(met) == list(range(10))
    assert epoch_order(10, 0, 0) != epoch_order(10, 0, 1) != epoch_order(10, 1, 1)
    assert steps_per_epoch(10, 4) == 3


def test_decoder_labels_are_the_target_and_nothing_else(setup):
    made = setup()
    examples = made.material.train[:3]
    batch = made.material.collate(examples)
    ids, labels = batch.inputs["input_ids"], batch.labels
    for row, example in enumerate(examples):
        scored = labels[row] != IGNORED
        assert labels[row][scored].tolist() == example.target
        assert torch.equal(ids[row][scored], labels[row][scored])
        length = int(batch.inputs["attention_mask"][row].sum())
        assert ids[row, :length].tolist() == example.prompt + example.target


def test_encoder_decoder_labels_are_the_target(setup):
    made = setup("t5")
    examples = made.material.train[:3]
    batch = made.material.collate(examples)
    for row, example in enumerate(examples):
        assert batch.labels[row][batch.labels[row] != IGNORED].tolist() == example.target
        mask = batch.inputs["attention_mask"][row].bool()
        assert batch.inputs["input_ids"][row][mask].tolist() == example.prompt


def test_teacher_rows_follow_their_students(setup, store):
    made = setup()
    examples = [made.material.train[index] for index in (3, 0, 2)]
    teacher = made.material.collate(examples).teacher
    for row, example in enumerate(examples):
        expected = store[example.id]
        assert int(teacher.lengths[row]) == len(expected.token_ids)
        kept = teacher.log_probs[row, 0]
        assert torch.isclose(kept.exp().sum(), torch.tensor(1.0), atol=1e-5)


@pytest.mark.parametrize("architecture", ["llama", "t5"])
def test_ends_stand_where_the_labels_do(setup, tokenizer, architecture):
    made = setup(architecture)
    examples = made.material.train[:3]
    batch = made.material.collate(examples)
    for row, example in enumerate(examples):
        ids, ends = encode_answer_with_ends(tokenizer, example.answer)
        assert example.target == [*ids, tokenizer.eos_token_id]
        scored = batch.labels[row] != IGNORED
        # EOS adds no text.
        assert batch.ends[row][scored].tolist() == [*ends, len(f" {example.answer}")]


@pytest.mark.parametrize("architecture", ["llama", "t5"])
def test_text_is_compared_across_tokenizers_from_store_to_objective(
    setup, tokenizer, answers, tmp_path, architecture
):
    """A teacher that reads single bytes: every token of the student is a span of theirs."""
    with LogitWriter(tmp_path / "store", vocabulary=256, epsilon=0.0) as writer:
        for answer in answers:
            ids = torch.tensor(list(f" {answer.answer}".encode()))
            logits = torch.randn(len(ids), 256, generator=torch.Generator().manual_seed(1))
            writer.add(answer.id, ids, logits, ends=torch.arange(len(ids)) + 1)
    made = setup(architecture, Method(loss="uld", alignment="spans", ce_weight=0.0))
    bytewise = LogitReader(tmp_path / "store")
    collate = Collator(tokenizer.pad_token_id, encoder_decoder=architecture == "t5", store=bytewise)
    examples = made.material.train[:2]
    batch = collate(examples)
    value = made.objective(made.model, batch).distillation
    logits, teacher = made.model(**batch.inputs).logits, batch.teacher
    expected = []
    for b, example in enumerate(examples):
        (labels,) = (batch.labels[b] != IGNORED).nonzero(as_tuple=True)
        starts = [0, *example.ends[:-2]]
        for label, start, end in zip(labels[:-1], starts, example.ends[:-1], strict=True):
            own = logits[b, label - int(architecture != "t5")].softmax(-1)
            before = teacher.token_log_probs[b, start : end - 1].sum()
            other = (before + teacher.log_probs[b, end - 1]).exp()
            expected.append(sorted_l1(own[None], other[None]))
    assert value.item() == pytest.approx(torch.cat(expected).mean().item(), rel=1e-5)


@pytest.mark.parametrize("architecture", ["llama", "t5"])
def test_the_objective_is_its_formula_and_leaves_eos_to_cross_entropy(
    setup, tokenizer, architecture
):
    method = Method(loss="uld", weight=1.5, ce_weight=0.5, reduction="sequence")
    made = setup(architecture, method)
    batch = made.material.collate(made.material.train[:4])
    # A teacher whose answers are longer than the student's: a scored EOS would find a partner.
    longer = torch.nn.functional.pad(batch.teacher.log_probs, (0, 0, 0, 2), value=-torch.inf)
    longer[:, :, 0] = longer[:, :, 0].nan_to_num(neginf=0.0)
    teacher = replace(
        batch.teacher,
        ids=torch.nn.functional.pad(batch.teacher.ids, (0, 0, 0, 2)),
        log_probs=longer,
        dropped=torch.nn.functional.pad(batch.teacher.dropped, (0, 2)),
        lengths=batch.teacher.lengths + 2,
        token_ends=None,
        log_errors=None,
        dropped_at={},
    )
    terms = made.objective(made.model, replace(batch, teacher=teacher))
    logits = made.model(**batch.inputs).logits
    shift = architecture != "t5"
    cross_entropy = distillation_loss("cross_entropy", logits, None, batch.labels, shift=shift)

    def uld(labels):
        return distillation_loss("uld", logits, teacher, labels, reduction="sequence", shift=shift)

    right = uld(batch.labels.masked_fill(batch.labels == tokenizer.eos_token_id, IGNORED))
    assert right.item() != pytest.approx(uld(batch.labels).item(), rel=1e-3)
    assert terms.total.item() == pytest.approx((0.5 * cross_entropy + 1.5 * right).item(), rel=1e-6)


def test_rows_without_answer_or_too_long_are_dropped_and_counted(rows, answers, tokenizer):
    spoiled = [*answers[:-1], type(answers[0])("r7", "train", "p", "", "eos")]
    by_id = {row.id: row for row in rows}
    lengths = [
        len(example.prompt) + len(example.target)
        for example in build_examples(
            by_id, spoiled, tokenizer, encoder_decoder=False, max_length=128
        ).examples
    ]
    limit = max(lengths) - 1
    found = build_examples(by_id, spoiled, tokenizer, encoder_decoder=False, max_length=limit)
    assert found.empty_answer == 1
    assert found.too_long == sum(length > limit for length in lengths) > 0
    assert len(found.examples) == len(spoiled) - 1 - found.too_long
    with pytest.raises(DataError, match="no example is left"):
        build_examples(by_id, spoiled, tokenizer, encoder_decoder=False, max_length=3)


def test_smaller_shares_are_contained_in_larger_ones(answers):
    quarter, half = ({a.id for a in subset(answers, share, 0)} for share in (25, 50))
    assert quarter < half and len(half) == 4
    assert subset(answers, 100, 0) == answers
    assert {a.id for a in subset(answers, 50, 1)} != half
