"""What all losses share: labels, shift, masks, padding, reduction, precision, refusals."""

from dataclasses import replace
from functools import partial

import pytest
import torch

from kd.errors import LossError
from kd.losses import Conventions, available_losses, distillation_loss, load_loss, loss_info
from tests.losses.batches import IGNORED, STOPPED_GRADIENT, batch_for, cross_tokenizer, stored

# Losses on hidden states and attentions have tests of their own: no logits, no stored teacher.
LOSSES = [name for name, info in available_losses().items() if not info.needs_live_teacher]
WITH_TEACHER = [name for name in LOSSES if loss_info(name).needs_teacher]


@pytest.mark.parametrize("name", sorted(set(LOSSES) - STOPPED_GRADIENT))
def test_gradient_is_right(name: str) -> None:
    batch = batch_for(name)
    logits = batch.student_logits.clone().requires_grad_()
    assert torch.autograd.gradcheck(
        lambda z: replace(batch, student_logits=z).loss(name, temperature=1.5), logits
    )


@pytest.mark.parametrize("name", LOSSES)
def test_only_rows_that_predict_answer_tokens_get_a_gradient(name: str) -> None:
    batch = batch_for(name)
    gradient = batch.gradient(name)
    predicting = torch.zeros(gradient.shape[:2], dtype=torch.bool)
    predicting[:, :-1] = batch.student_labels[:, 1:] != IGNORED
    info, reached = loss_info(name), gradient.abs().sum(-1) > 0
    assert not (reached & ~predicting).any()
    if info.alignments[0] == "truncate" and "answers" not in info.needs:
        if info.needs_teacher and not info.same_vocabulary:
            predicting[1, 4:] = False  # the second teacher answer has two tokens only
        assert torch.equal(reached, predicting)


@pytest.mark.parametrize("name", LOSSES)
def test_shift_reads_the_logits_before_the_label(name: str) -> None:
    batch = batch_for(name)
    assert not torch.isclose(batch.loss(name), batch.loss(name, shift=False))
    rolled = replace(
        batch,
        student_logits=batch.student_logits.roll(1, dims=1),
        teacher_logits=batch.dense.roll(1, dims=1),
    )
    assert torch.equal(batch.loss(name), rolled.loss(name, shift=False))


def test_the_teacher_may_be_shifted_where_the_student_is_not() -> None:
    batch = cross_tokenizer()
    encoder_decoder = replace(batch, student_logits=batch.student_logits.roll(1, dims=1))
    mixed = encoder_decoder.loss("uld", shift=False, teacher_shift=True)
    assert torch.equal(mixed, batch.loss("uld"))


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("reduction", ["token", "sequence"])
def test_padding_on_either_side_changes_nothing(name: str, side: str, reduction: str) -> None:
    batch = batch_for(name)
    pad = (3, 0) if side == "left" else (0, 3)
    ends = batch.extras.student_ends
    assert ends is not None
    padded = replace(
        batch,
        student_logits=torch.nn.functional.pad(batch.student_logits, (0, 0, *pad), value=9.0),
        student_labels=torch.nn.functional.pad(batch.student_labels, pad, value=IGNORED),
        extras=replace(batch.extras, student_ends=torch.nn.functional.pad(ends, pad)),
    )
    assert torch.equal(
        padded.loss(name, reduction=reduction), batch.loss(name, reduction=reduction)
    )


@pytest.mark.parametrize("name", LOSSES)
def test_token_and_sequence_means_differ_as_defined(name: str) -> None:
    """Token: all aligned tokens weigh the same. Sequence: all sequences do."""
    batch = batch_for(name)
    parts = [batch.sequence(b).loss(name) for b in (0, 1)]
    loss = load_loss(name, setup=batch.setup)
    counts = [loss.count(*part.tensors, extras=part.extras) for part in map(batch.sequence, (0, 1))]
    assert counts[0] != counts[1]
    by_token = (counts[0] * parts[0] + counts[1] * parts[1]) / sum(counts)
    torch.testing.assert_close(batch.loss(name), by_token)
    by_sequence = (parts[0] + parts[1]) / 2
    torch.testing.assert_close(batch.loss(name, reduction="sequence"), by_sequence)
    assert not torch.isclose(by_token, by_sequence)


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("reduction", ["token", "sequence"])
def test_accumulated_micro_batches_equal_the_full_batch(name: str, reduction: str) -> None:
    batch = batch_for(name)
    full, gradient = (
        batch.loss(name, reduction=reduction),
        batch.gradient(name, reduction=reduction),
    )
    parts = [batch.sequence(b) for b in (0, 1)]
    loss = load_loss(name, Conventions(reduction=reduction), setup=batch.setup)
    normalizer = sum(loss.count(*part.tensors, extras=part.extras) for part in parts)
    settings = {"reduction": reduction, "normalizer": normalizer}
    torch.testing.assert_close(sum(part.loss(name, **settings) for part in parts), full)
    torch.testing.assert_close(
        torch.cat([part.gradient(name, **settings) for part in parts]), gradient
    )


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("reduction", ["token", "sequence"])
def test_an_all_masked_batch_gives_zero_with_a_zero_gradient(name: str, reduction: str) -> None:
    batch = batch_for(name)
    masked = replace(batch, student_labels=torch.full_like(batch.student_labels, IGNORED))
    assert masked.loss(name, reduction=reduction).item() == 0.0
    assert torch.equal(
        masked.gradient(name, reduction=reduction), torch.zeros_like(batch.student_logits)
    )


@pytest.mark.parametrize("name", LOSSES)
def test_a_masked_sequence_does_not_dilute_the_mean_over_sequences(name: str) -> None:
    batch = batch_for(name)
    target = batch.student_labels.clone()
    target[1] = IGNORED
    torch.testing.assert_close(
        replace(batch, student_labels=target).loss(name, reduction="sequence"),
        batch.sequence(0).loss(name),
    )


@pytest.mark.parametrize("name", WITH_TEACHER)
def test_temperature_divides_the_logits_and_t2_multiplies_the_loss(name: str) -> None:
    batch = batch_for(name)
    halved = replace(
        batch,
        student_logits=batch.student_logits / 2,
        teacher_logits=batch.dense / 2,
    )
    torch.testing.assert_close(batch.loss(name, temperature=2.0), halved.loss(name))
    torch.testing.assert_close(
        batch.loss(name, temperature=2.0, t2_scaling=True), 4 * halved.loss(name)
    )


@pytest.mark.parametrize("name", WITH_TEACHER)
def test_the_teacher_may_have_its_own_temperature(name: str) -> None:
    batch = batch_for(name)
    by_hand = replace(
        batch,
        student_logits=batch.student_logits / 2,
        teacher_logits=batch.dense * 2,
    )
    own = batch.loss(name, temperature=2.0, teacher_temperature=0.5)
    torch.testing.assert_close(own, by_hand.loss(name))


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_half_precision_inputs_are_computed_in_float32(name: str, dtype: torch.dtype) -> None:
    batch = batch_for(name)
    low = replace(
        batch,
        student_logits=batch.student_logits.to(dtype),
        teacher_logits=batch.dense.to(dtype),
    )
    high = replace(
        low,
        student_logits=low.student_logits.double(),
        teacher_logits=low.dense.double(),
    )
    assert low.loss(name).dtype == torch.float32 and high.loss(name).dtype == torch.float64
    torch.testing.assert_close(low.loss(name).double(), high.loss(name), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", LOSSES)
def test_inputs_are_never_modified_and_the_teacher_gets_no_gradient(name: str) -> None:
    batch = batch_for(name)
    teacher = batch.dense.clone().requires_grad_()
    student = batch.student_logits.clone().requires_grad_()
    batch = replace(batch, student_logits=student, teacher_logits=teacher)
    before = [tensor.detach().clone() for tensor in batch.tensors]
    batch.loss(name, temperature=2.0).backward()
    assert all(map(torch.equal, batch.tensors, before))
    assert teacher.grad is None


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("stored_too", [False, True])
def test_padded_columns_of_minus_infinity_change_nothing(name: str, stored_too: bool) -> None:
    batch = batch_for(name)
    pad = partial(torch.nn.functional.pad, pad=(0, 2), value=-torch.inf)
    padded = replace(
        batch,
        student_logits=pad(batch.student_logits),
        teacher_logits=pad(batch.dense),
    )
    if stored_too:
        batch, padded = stored(batch, epsilon=0.05), stored(padded, epsilon=0.05)
    torch.testing.assert_close(padded.loss(name), batch.loss(name))
    gradient = padded.gradient(name)
    torch.testing.assert_close(gradient[..., :-2], batch.gradient(name))
    assert torch.equal(gradient[..., -2:], torch.zeros_like(gradient[..., -2:]))


def test_no_teacher_is_needed_for_cross_entropy_alone() -> None:
    batch = cross_tokenizer()
    alone = distillation_loss("cross_entropy", batch.student_logits, None, batch.student_labels)
    assert torch.equal(alone, batch.loss("cross_entropy"))
    with pytest.raises(LossError, match="teacher_logits"):
        distillation_loss("uld", batch.student_logits, None, batch.student_labels)
    with pytest.raises(LossError, match="teacher_labels"):
        replace(batch, teacher_labels=None).loss("uld")


def test_a_same_vocabulary_loss_refuses_two_vocabularies_and_names_others() -> None:
    with pytest.raises(LossError, match=r"7 tokens and the teacher's 9.*across vocabularies.*uld"):
        cross_tokenizer().loss("forward_kl")
    with pytest.raises(LossError, match=r"7 tokens and the teacher's 9"):
        stored(cross_tokenizer(), epsilon=0.01).loss("forward_kl")


@pytest.mark.parametrize(
    "setting", [{"reduction": "mean"}, {"alignment": "dtw"}, {"temperature": 0.0}, {"beta": 1.0}]
)
def test_undefined_settings_are_refused(setting: dict[str, object]) -> None:
    with pytest.raises(LossError):
        cross_tokenizer().loss("uld", **setting)


def test_shapes_that_do_not_fit_are_refused() -> None:
    batch = cross_tokenizer()
    with pytest.raises(LossError, match="student_logits has shape"):
        replace(batch, student_labels=batch.student_labels[:, 1:]).loss("uld")
    with pytest.raises(LossError, match="teacher_logits has shape"):
        replace(batch, teacher_labels=batch.student_labels).loss("uld")
    with pytest.raises(LossError, match="same rows"):
        replace(
            batch, student_logits=batch.student_logits[:1], student_labels=batch.student_labels[:1]
        ).loss("uld")
