"""Only answer positions go through the output layer, and nothing else about a pass changes."""

import pytest
import torch

from kd.errors import ModelError
from kd.experiment.logits import Logits
from kd.experiment.stages import ExtractSpec
from kd.logits import LogitReader
from kd.models.encoding import pad_batch
from kd.models.loading import load_model
from kd.provenance.manifest import read_manifest
from kd.teacher import extraction
from kd.teacher.answers import read_answers
from kd.teacher.forward import Encoded, answer_logits, batches

ROWS = [
    Encoded([1, 5, 9, 7], [8, 3, 6], [1, 2, 3]),
    Encoded([1, 4], [2, 9, 9, 5, 7], [1, 2, 3, 4, 5]),
    Encoded([1, 7, 7, 7, 8], [6], [1]),
]


def whole_logits(model, rows):
    """The same by the model's own forward pass, over every position."""
    if model.config.is_encoder_decoder:
        inputs, mask = pad_batch([row.prompt for row in rows], pad=0)
        start = model.config.decoder_start_token_id
        decoder, _ = pad_batch([[start, *row.answer[:-1]] for row in rows], pad=0)
        logits = model(input_ids=inputs, attention_mask=mask, decoder_input_ids=decoder).logits
        return torch.cat([logits[n, : len(row.answer)] for n, row in enumerate(rows)])
    inputs, mask = pad_batch([row.prompt + row.answer for row in rows], pad=0)
    logits = model(input_ids=inputs, attention_mask=mask).logits
    ends = [len(row.prompt) + len(row.answer) - 1 for row in rows]
    return torch.cat(
        [logits[n, len(row.prompt) - 1 : end] for n, (row, end) in enumerate(zip(rows, ends))]  # noqa: B905
    )


@torch.inference_mode()
def test_answer_logits_are_those_of_the_whole_forward_pass(made):
    model, _ = load_model(made / "model")
    found = answer_logits(model, ROWS)
    assert found.shape == (9, model.config.vocab_size)
    torch.testing.assert_close(found, whole_logits(model, ROWS), rtol=0, atol=1e-6)


@torch.inference_mode()
def test_the_output_layer_sees_no_prompt_and_no_padding(made):
    model, _ = load_model(made / "model")
    seen = []
    layer = model.get_output_embeddings()
    hook = layer.register_forward_hook(lambda _, given, out: seen.append(out.shape[:-1].numel()))
    answer_logits(model, ROWS)
    hook.remove()
    assert seen == [9]
    assert not layer._forward_pre_hooks  # the model is left as it was


@torch.inference_mode()
def test_a_layer_that_mixes_positions_is_refused(made):
    model, _ = load_model(made / "model")
    layer = model.get_output_embeddings()
    hook = layer.register_forward_hook(lambda _, given, out: out[:, :-1])
    with pytest.raises(ModelError, match="does not keep positions apart"):
        answer_logits(model, ROWS)
    hook.remove()


def test_batches_hold_rows_of_similar_length_within_both_budgets():
    rows = [Encoded([1] * (n % 7), [2] * (1 + n % 3), [0] * (1 + n % 3)) for n in range(40)]
    found = list(batches(rows, token_budget=30, logit_budget=60, vocabulary=10))
    assert sorted(place for batch in found for place in batch) == list(range(40))
    for batch in found:
        longest = max(rows[place].length for place in batch)
        assert len(batch) == 1 or longest * len(batch) <= 30
        assert len(batch) == 1 or 10 * sum(len(rows[place].answer) for place in batch) <= 60
    longest = [max(rows[place].length for place in batch) for batch in found]
    assert longest == sorted(longest)
    assert [len(batch) for batch in batches(rows, 1, 1, 10)] == [1] * 40


def extracted(made, name, logits, some=slice(None)):
    """The logits of some answers."""
    answers = made / "answers.parquet"
    if some != slice(None):
        import pyarrow.parquet as pq

        answers = made / f"{name}.parquet"
        table = pq.read_table(made / "answers.parquet")
        pq.write_table(table.take(list(range(len(table)))[some]), answers)
    spec = ExtractSpec(logits=logits)
    folder = made / name
    original = extraction.StageRecord
    try:
        extraction.StageRecord = NoRecord
        extraction.extract_logits(spec, made / "model", answers, folder)
    finally:
        extraction.StageRecord = original
    return LogitReader(folder)


class NoRecord:
    """A manifest that nobody reads: inputs made by hand have none of their own."""

    fingerprint = "f"

    def __init__(self, *_, **__):
        self.inputs = {"model": {"sha256": "m"}, "answers": {"sha256": "a"}}

    def write(self, *_, **__):
        pass

    def is_done(self, *_):
        return False


def test_with_the_deterministic_setting_a_row_depends_on_no_other(made):
    logits = Logits(epsilon=1e-3, deterministic=True)
    whole = extracted(made, "whole", logits)
    part = extracted(made, "part", logits, slice(3, None, 2))
    assert 1 < len(part) < len(whole)
    for row_id in part:
        for name, value in vars(whole[row_id]).items():
            other = getattr(part[row_id], name)
            assert torch.equal(value, other) if torch.is_tensor(value) else value == other


def test_without_it_rows_agree_within_the_stated_tolerance(made):
    alone = extracted(made, "alone", Logits(epsilon=0.0, deterministic=True))
    together = extracted(made, "together", Logits(epsilon=0.0))
    for row_id in alone:
        one, two = alone[row_id], together[row_id]
        difference = (one.token_log_probs - two.token_log_probs).abs().max()
        assert difference <= 1e-4
        assert torch.equal(one.offsets, two.offsets)


def test_the_index_and_the_manifest_say_what_was_extracted(made):
    out = made / "noted" / "logits"
    spec = ExtractSpec(logits=Logits(epsilon=1e-2))
    extraction.extract_logits(spec, made / "model", made / "answers.parquet", out)
    index, notes = LogitReader(out).index, read_manifest(out.parent / "extract.manifest.json")
    answers = [found for found in read_answers(made / "answers.parquet") if found.answer]
    assert notes["notes"]["rows"] == len(answers) and notes["notes"]["dropped_max"] <= 0.0101
    inputs = notes["hashed"]["inputs"]
    assert index.origin.model == inputs["model"]["sha256"] and index.origin.revision is None
    assert index.origin.answers == inputs["answers"]["sha256"]
    assert index.origin.dtype == "float32" and index.origin.template and index.origin.tokenizer


def test_drawn_tokens_are_stored_with_their_variance(made):
    out = made / "drawn" / "logits"
    spec = ExtractSpec(logits=Logits(sampling={"draws": 20, "seed": 3}))
    extraction.extract_logits(spec, made / "model", made / "answers.parquet", out)
    notes = read_manifest(out.parent / "extract.manifest.json")["notes"]
    assert 0 < notes["gradient_variance"] <= 1 / 20
    reader = LogitReader(out)
    row = reader[next(iter(reader))]
    assert row.draws == 20 and row.entropies is not None
    shares = row.log_probs.double().exp()
    assert shares.sum().item() == pytest.approx(len(row), rel=1e-5)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu_the_same_tokens_are_kept(made, monkeypatch):
    found = extracted(made, "gpu", Logits(epsilon=1e-3))
    monkeypatch.setattr("kd.models.loading.pick_device", lambda: torch.device("cpu"))
    expected = extracted(made, "cpu", Logits(epsilon=1e-3))
    for row_id in expected:
        one, two = found[row_id], expected[row_id]
        torch.testing.assert_close(one.token_log_probs, two.token_log_probs, rtol=0, atol=1e-3)
