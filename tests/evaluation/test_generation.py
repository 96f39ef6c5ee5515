"""Generation does not depend on the batch, ends where an answer ends and refuses long prompts."""

import pytest
import torch

from kd.errors import DataError
from kd.evaluation.generation import generate
from kd.experiment.schema import Generation

# b ends with a newline, f with EOS, h never; a newline is followed by d, and d by a newline.
CHAIN = {"a": "b", "b": "\n", "e": "f", "f": "</s>", "g": "h", "h": "h", "\n": "d", "d": "\n"}
PROMPTS = [
    "Short:",
    "A prompt of middling length:",
    "x",
    "The longest of all the prompts here, by far:",
]


def texts(results):
    return [result.text for result in results]


@pytest.mark.parametrize("architecture", ["llama", "opt", "gpt_neox", "bloom", "t5"])
def test_a_batch_answers_as_each_prompt_alone(random_model, tokenizer, architecture):
    """Padding changes no answer, and answers come back in the prompts' order."""
    model = random_model(architecture)
    alone = generate(model, tokenizer, PROMPTS, Generation(max_new_tokens=12, batch_size=1))
    for size in (2, 4):
        settings = Generation(max_new_tokens=12, batch_size=size)
        assert generate(model, tokenizer, PROMPTS, settings) == alone
    assert len({tuple(result.token_ids) for result in alone}) > 1, "the prompts make no difference"


@pytest.mark.parametrize("architecture", ["opt", "t5"])
def test_the_answer_is_the_models_own_greedy_choice(random_model, tokenizer, architecture):
    """Each token is the argmax of a plain forward pass without cache or padding."""
    model = random_model(architecture)
    for parameter in model.parameters():
        parameter.data *= 3  # sharper choices
    settings = Generation(max_new_tokens=6)
    answer = generate(model, tokenizer, PROMPTS, settings)[1]
    got = answer.token_ids
    prompt = tokenizer.encode(PROMPTS[1], add_special_tokens=False)
    expected: list[int] = []
    confidence = 1.0
    for _ in got:
        if architecture == "t5":
            inputs = {"input_ids": [[*prompt, 1]], "decoder_input_ids": [[0, *expected]]}
        else:
            inputs = {"input_ids": [[2, *prompt, *expected]]}
        with torch.no_grad():
            logits = model(**{name: torch.tensor(ids) for name, ids in inputs.items()}).logits
        expected.append(int(logits[0, -1].argmax()))
        confidence *= float(logits[0, -1].softmax(-1).max())
    assert got == expected
    assert answer.confidence == pytest.approx(confidence, abs=6e-5)
    assert confidence > 1e-3, "a product that is all but 0 proves nothing"


def test_every_row_ends_for_its_own_reason(chain_model, tokenizer):
    """Newline, EOS and the token limit, in one batch; the ending token is kept, padding is not."""
    model = chain_model(CHAIN)
    got = generate(model, tokenizer, ["..a", "e", ".g"], Generation(max_new_tokens=5))
    assert texts(got) == ["b", "f", "hhhhh"]
    assert [result.finish_reason for result in got] == ["newline", "eos", "length"]
    assert [len(result.token_ids) for result in got] == [2, 2, 5]


def test_a_newline_before_any_text_does_not_end_the_answer(chain_model, tokenizer):
    """The prompt ends in d: the model says newline, d, newline."""
    (got,) = generate(chain_model(CHAIN), tokenizer, ["d"], Generation(max_new_tokens=9))
    assert (got.text, got.finish_reason, len(got.token_ids)) == ("d", "newline", 3)


@pytest.mark.parametrize(
    ("prompts", "passes"), [(["a", "..a"], 2), (["a", "e"], 2), (["a", "d"], 3)]
)
def test_a_batch_stops_once_all_its_rows_have_ended(chain_model, tokenizer, prompts, passes):
    """The model runs once per token of the longest answer, not `max_new_tokens` times."""
    model = chain_model(CHAIN)
    calls = []
    model.register_forward_hook(lambda *_: calls.append(1))
    generate(model, tokenizer, prompts, Generation(max_new_tokens=50))
    assert len(calls) == passes


def test_the_models_own_generation_settings_are_ignored(random_model, tokenizer):
    """Sampling, penalties and other defaults of a hub model do not reach the result."""
    model, settings = random_model("llama"), Generation(max_new_tokens=12)
    plain = generate(model, tokenizer, PROMPTS, settings)
    model.generation_config.update(
        do_sample=True, temperature=5.0, repetition_penalty=3.0, no_repeat_ngram_size=1, num_beams=3
    )
    model.generation_config.eos_token_id = plain[0].token_ids[0]
    assert generate(model, tokenizer, PROMPTS, settings) == plain


def test_a_prompt_fits_exactly_or_is_refused(random_model, tokenizer):
    """96 positions hold BOS, 85 characters and 10 new tokens; one character more is too much."""
    model, settings = random_model("llama"), Generation(max_new_tokens=10)
    assert generate(model, tokenizer, ["x" * 85], settings)
    with pytest.raises(DataError, match=r"Row 2 \('q7'\).* 87 tokens.* room for 86 .*Shorten"):
        generate(model, tokenizer, ["x", "x" * 86], settings, ids=["q6", "q7"])


def test_an_encoder_need_not_hold_the_answer(random_model, tokenizer):
    """In an encoder-decoder the context limits the prompt alone."""
    model, settings = random_model("t5"), Generation(max_new_tokens=3)
    assert generate(model, tokenizer, ["x" * 95], settings)
    with pytest.raises(DataError, match="97 tokens"):
        generate(model, tokenizer, ["x" * 96], settings)


def test_progress_reaches_the_number_of_prompts(chain_model, tokenizer):
    """It is reported after every batch."""
    seen = []
    settings = Generation(max_new_tokens=2, batch_size=2)
    generate(chain_model(CHAIN), tokenizer, ["a"] * 5, settings, lambda done, _: seen.append(done))
    assert seen == [2, 4, 5]
