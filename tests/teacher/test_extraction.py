"""Stored logits are those that predict each answer token, whatever else is in the batch."""

import pytest
import torch

from kd.errors import DataError, ModelError
from kd.experiment.logits import Logits
from kd.experiment.schema import Generation
from kd.experiment.stages import ExtractSpec
from kd.logits import LogitReader
from kd.models.encoding import encode_prompt
from kd.models.loading import load_model
from kd.models.offsets import encode_answer_with_ends
from kd.provenance.manifest import read_manifest
from kd.teacher import extraction
from tests.teacher.conftest import answer


def test_shots_are_not_answered_and_are_recorded(made):
    answers = answer(made)
    manifest = read_manifest(made / "answer.manifest.json")
    (shot,) = manifest["notes"]["shots"]
    ids = [found.id for found in answers]
    assert shot not in ids and len(ids) == 15
    assert all(found.prompt.count("Question:") == 2 for found in answers)


def test_each_stored_distribution_predicts_its_answer_token(made, monkeypatch):
    answers = [found for found in answer(made) if found.answer]
    model, tokenizer = load_model(made / "model")
    stores = []
    for budget in (1, 4096):  # one row a batch, all rows in one
        monkeypatch.setattr(extraction, "TOKEN_BUDGET", budget)
        out = made / f"logits-{budget}"
        spec = ExtractSpec(logits=Logits(epsilon=0.0))
        extraction.extract_logits(spec, made / "model", made / "answers.parquet", out)
        stores.append(LogitReader(out))
    for found in answers:
        prompt = encode_prompt(tokenizer, found.prompt, model.config.is_encoder_decoder)
        target, ends = encode_answer_with_ends(tokenizer, found.answer)
        assert all(store[found.id].ends.tolist() == ends for store in stores)
        for position, token in enumerate(target):
            with torch.inference_mode():
                expected = next_token(model, prompt, target[:position]).log_softmax(-1)
            for store in stores:
                row = store[found.id]
                assert int(row.token_ids[position]) == token
                dense = dense_row(row, position, model.config.vocab_size)
                assert torch.allclose(dense, expected, atol=2e-5), (found.id, position)
                own = row.token_log_probs[position]
                assert torch.allclose(own, expected[token], atol=2e-5), (found.id, position)


def next_token(model, prompt, given):
    if model.config.is_encoder_decoder:
        decoder = torch.tensor([[model.config.decoder_start_token_id, *given]])
        return model(input_ids=torch.tensor([prompt]), decoder_input_ids=decoder).logits[0, -1]
    return model(input_ids=torch.tensor([prompt + given])).logits[0, -1]


def dense_row(row, position, vocabulary):
    start, end = int(row.offsets[position]), int(row.offsets[position + 1])
    dense = torch.full((vocabulary,), -torch.inf)
    dense[row.ids[start:end].long()] = row.log_probs[start:end]
    return dense


def test_prompts_that_cannot_fit_are_dropped_and_counted_or_refused(made):
    everything = len(answer(made, shots=0))
    fewer = answer(made, "some.parquet", shots=0, generation=Generation(max_new_tokens=170))
    manifest = read_manifest(made / "answer.manifest.json")
    if "t5" in made.name:  # an encoder's context does not have to hold the answer
        assert len(fewer) == everything
    else:
        assert 0 < len(fewer) < everything
    assert manifest["notes"]["dropped_too_long"] == everything - len(fewer)
    some = answer(made, "fewer-shots.parquet", shots=7)
    assert len(some) == everything - 7  # those that are shown are not asked
    kept = read_manifest(made / "answer.manifest.json")["notes"]["shortened"]
    assert {one["characters"] for one in kept.values()} == {None}
    if "t5" not in made.name:
        assert 0 <= min(one["shots"] for one in kept.values()) < 7
    longest = Generation(max_new_tokens=500)
    if "t5" not in made.name:
        with pytest.raises(DataError, match="every prompt is too long for the teacher"):
            answer(made, "none.parquet", shots=0, generation=longest)
    answer(made)  # restore the manifest for other tests


def test_out_of_memory_says_what_was_read_and_what_would_take_less(made, monkeypatch):
    def no_room(*_):
        raise torch.OutOfMemoryError

    monkeypatch.setattr(extraction, "answer_logits", no_room)
    with pytest.raises(ModelError, match=r"while the teacher read \d+ rows .* 'load: {dtype"):
        spec, out = ExtractSpec(logits=Logits()), made / "no-room"
        extraction.extract_logits(spec, made / "model", made / "answers.parquet", out)
