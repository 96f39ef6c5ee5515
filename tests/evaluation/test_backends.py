"""Backends and batches of generation: the answers do not depend on them, or it is said."""

import json
from itertools import pairwise

import pytest
import torch
from transformers import (
    BloomForCausalLM,
    LlamaForCausalLM,
    PreTrainedModel,
    T5ForConditionalGeneration,
)

from kd.errors import ModelError
from kd.evaluation import backends
from kd.evaluation.generation import _batches, generate
from kd.experiment.models import TokenizerSpec
from kd.experiment.placement import Placement
from kd.experiment.schema import Generation
from kd.models.architectures import Vocabulary, build_model
from kd.models.loading import load_model, pick_device
from kd.models.placement import (
    choose_attention,
    loading_arguments,
    placement_notes,
    say_offloaded,
)
from kd.models.tokenizers import train_tokenizer
from kd.resume.journal import Journal

WORDS = "red blue green white black grey pink gold".split()
PROMPTS = [f"Context: {'the ' * (i % 4)}{word} cat\nAnswer:" for i, word in enumerate(WORDS)]


@pytest.fixture(scope="module", params=["llama", "gpt_neox", "t5"])
def folder(request, tmp_path_factory):
    texts = [f"Context: the {word} cat\nAnswer: {word}\n" for word in WORDS]
    tokenizer = train_tokenizer(TokenizerSpec(algorithm="byte_bpe", vocabulary=320), texts)
    tokenizer.model_max_length = 128
    model = build_model(request.param, "tiny", Vocabulary.of(tokenizer), context=128, seed=1)
    path = tmp_path_factory.mktemp(request.param)
    model.save_pretrained(path)
    tokenizer.save_pretrained(path)
    return path


def tokens(answers):
    return [answer.token_ids for answer in answers]


@pytest.mark.parametrize(
    "settings", [{"token_budget": 40}, {"token_budget": 1}, {"batch_size": 3}, {"cache": "static"}]
)
def test_answers_do_not_depend_on_batches_or_the_cache(folder, settings):
    model, tokenizer = load_model(folder)
    expected = generate(model, tokenizer, PROMPTS, Generation(max_new_tokens=8))
    found = generate(model, tokenizer, PROMPTS, Generation(max_new_tokens=8, **settings))
    assert tokens(found) == tokens(expected)


@pytest.mark.parametrize("budget", [1, 30, 64, 1000])
def test_a_batch_holds_what_its_budget_allows_and_every_row_once(budget):
    encoded = [[1] * length for length in (20, 18, 9, 9, 7, 3, 2, 1)]
    settings = Generation(max_new_tokens=10, token_budget=budget)
    batches = list(_batches(range(8), encoded, settings))
    assert [row for batch in batches for row in batch] == list(range(8))
    for batch in batches:
        padded = len(batch) * (max(len(encoded[row]) for row in batch) + 10)
        assert padded <= budget or len(batch) == 1
    for batch, following in pairwise(batches):
        assert (len(batch) + 1) * (len(encoded[batch[0]]) + 10) > budget, following


def test_a_static_cache_stays_within_the_budget():
    """It is as long for every batch as it was for the first one."""
    encoded = [[1] * length for length in (20, 18, 9, 9, 7, 3, 2, 1)]
    settings = Generation(max_new_tokens=10, token_budget=64, cache="static")
    batches = list(_batches(range(8), encoded, settings))
    assert [row for batch in batches for row in batch] == list(range(8))
    assert {len(batch) for batch in batches} == {2}  # of 30 tokens each, and one shape for all


class Fake:
    """A backend that gives what another model would, once in a while something else."""

    name = "fake"

    def __init__(self, folder, settings, placement, eos, wrong=False):
        self.model, self.tokenizer = load_model(folder)
        self.settings, self.wrong, self.asked = settings, wrong, 0

    def generate(self, prompts):
        found = []
        for prompt in prompts:
            self.asked += 1
            ids = torch.tensor([prompt])
            out = self.model.generate(
                ids, max_new_tokens=self.settings.max_new_tokens, do_sample=False
            )[0]
            start = 1 if self.model.config.is_encoder_decoder else len(prompt)
            new = out[start:].clone()
            if self.wrong and self.asked == 2:
                new[1] = (new[1] + 1) % 300
            found.append((new, torch.zeros(len(new), dtype=torch.float64)))
        return found


def opened(folder, monkeypatch, wrong=False):
    monkeypatch.setattr(backends, "Vllm", lambda *given: Fake(*given, wrong=wrong))
    model, tokenizer = load_model(folder)
    settings = Generation(max_new_tokens=8, backend="vllm", check_rows=4)
    expected = generate(model, tokenizer, PROMPTS, Generation(max_new_tokens=8))
    backend, notes = backends.open_backend(
        model, tokenizer, folder, settings, placement=None, prompts=PROMPTS
    )
    assert model.device.type == "meta", "its weights are in the way"
    found = generate(model, tokenizer, PROMPTS, settings, backend=backend)
    return expected, found, notes["generation"]["check"]


def test_another_backend_gives_the_same_answers_and_says_so(folder, monkeypatch):
    expected, found, check = opened(folder, monkeypatch)
    assert tokens(found) == tokens(expected)
    assert [one.text for one in found] == [one.text for one in expected]
    assert [one.finish_reason for one in found] == [one.finish_reason for one in expected]
    assert check == {"rows": 4, "identical": 4}


def test_a_difference_is_reported_with_its_place(folder, monkeypatch, capsys):
    _, _, check = opened(folder, monkeypatch, wrong=True)
    assert check["identical"] == 3
    assert check["first_difference"]["token"] <= 1
    assert "answers 3 of 4 prompts as transformers does" in capsys.readouterr().err


def test_vllm_is_refused_where_it_is_absent(folder):
    if backends.find_spec("vllm"):
        pytest.skip("vLLM is installed")
    model, tokenizer = load_model(folder)
    settings = Generation(max_new_tokens=2, backend="vllm", check_rows=1)
    with pytest.raises(ModelError, match=r"needs vLLM, which is not installed|no encoder-decoder"):
        backends.open_backend(model, tokenizer, folder, settings, placement=None, prompts=PROMPTS)


@pytest.mark.parametrize("what", ["adapters", "encoder-decoder"])
def test_vllm_is_refused_what_it_cannot_run(tmp_path, what):
    (tmp_path / "config.json").write_text(json.dumps({"is_encoder_decoder": what[0] == "e"}))
    if what == "adapters":
        (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(ModelError, match="adapters" if what == "adapters" else "encoder-decoder"):
        backends.Vllm(tmp_path, Generation(), None, eos=0)


class Killed(Exception):
    pass


def test_a_killed_generation_loses_one_batch_at_most(folder, tmp_path, monkeypatch):
    model, tokenizer = load_model(folder)
    settings = Generation(max_new_tokens=8, token_budget=60)
    expected = generate(model, tokenizer, PROMPTS, settings)
    calls = []
    run = type(model).generate

    def counted(self, *given, **named):
        calls.append(1)
        if len(calls) == 3:
            raise Killed
        return run(self, *given, **named)

    monkeypatch.setattr(type(model), "generate", counted)
    with pytest.raises(Killed):
        generate(model, tokenizer, PROMPTS, settings, journal=Journal(tmp_path, "f"))
    kept = Journal(tmp_path, "f")
    assert len(kept.entries) == 2
    calls[:] = [1, 1, 1]
    found = generate(model, tokenizer, PROMPTS, settings, journal=kept)
    assert found == expected
    assert len(calls) - 3 == len(Journal(tmp_path, "f").entries) - 2


def test_with_another_backend_too_a_kill_loses_one_batch_at_most(folder, tmp_path):
    model, tokenizer = load_model(folder)
    settings = Generation(max_new_tokens=8, batch_size=3, backend="vllm")
    expected = generate(model, tokenizer, PROMPTS, settings)
    backend, batches = Fake(folder, settings, None, 0), []
    answer = backend.generate

    def killed(prompts):
        batches.append(len(prompts))
        if len(batches) == 3:
            raise Killed
        return answer(prompts)

    backend.generate = killed
    with pytest.raises(Killed):
        generate(
            model, tokenizer, PROMPTS, settings, journal=Journal(tmp_path, "f"), backend=backend
        )
    kept = Journal(tmp_path, "f")
    assert batches == [3, 3, 2] and [len(entry) for entry in kept.entries] == [3, 3]
    found = generate(model, tokenizer, PROMPTS, settings, journal=kept, backend=backend)
    assert tokens(found) == tokens(expected)
    assert batches == [3, 3, 2, 2], "answers that were kept were asked for again"


def test_out_of_memory_names_a_budget_that_is_half(folder, monkeypatch):
    model, tokenizer = load_model(folder)

    def fails(self, *given, **named):
        raise torch.OutOfMemoryError

    monkeypatch.setattr(type(model), "generate", fails)
    with pytest.raises(ModelError, match=r"Set 'generation.token_budget: \d+' \(this batch had"):
        generate(model, tokenizer, PROMPTS, Generation(max_new_tokens=8))


# --- where a model lies ----------------------------------------------------------------------


def test_a_model_in_half_precision_says_what_it_runs_on_and_why(folder):
    placement = Placement(dtype="bfloat16", device_map="auto")
    model, tokenizer = load_model(folder, placement=placement)
    assert model.dtype == torch.bfloat16
    assert len(generate(model, tokenizer, PROMPTS[:2], Generation(max_new_tokens=3))) == 2
    notes = placement_notes(placement, model)["model"]
    assert notes["dtype"] == "bfloat16" and notes["device"] == "cpu"
    assert notes["attention_reason"] == "PyTorch's own, as there is no GPU"
    json.dumps(notes)
    assert placement_notes(None, model) == {}


@pytest.mark.parametrize(
    ("places", "told"),
    [({"a": 0, "b": "cpu"}, "1 of its parts"), ({"a": 0, "b": 1}, ""), ({"": "cpu"}, "")],
)
def test_parts_outside_of_the_gpus_are_told(capsys, places, told):
    class Placed:
        hf_device_map = places

    say_offloaded(Placed())
    error = capsys.readouterr().err
    assert told in error and bool(error) == bool(told)


def test_what_cannot_be_had_is_refused_with_the_reason():
    cpu = torch.device("cpu")
    with pytest.raises(ModelError, match=r"needs a GPU, and none is used here"):
        loading_arguments(Placement(quantisation="4bit"), cpu, LlamaForCausalLM)
    with pytest.raises(ModelError, match="cannot be used: there is no GPU"):
        placement = Placement(attention="flash_attention_2", dtype="bfloat16")
        choose_attention(placement, cpu, LlamaForCausalLM)
    with pytest.raises(ModelError, match=r"BloomForCausalLM has no such attention\. Use 'auto'"):
        choose_attention(Placement(attention="sdpa"), cpu, BloomForCausalLM)
    if backends.find_spec("bitsandbytes") is None:
        with pytest.raises(ModelError, match="needs bitsandbytes, which is not installed"):
            cuda = torch.device("cuda:0")
            loading_arguments(Placement(quantisation="8bit"), cuda, LlamaForCausalLM)


@pytest.mark.parametrize(
    ("dtype", "capability", "installed", "backend", "reason"),
    [
        ("float32", (9, 0), True, "sdpa", "half precision only"),
        ("bfloat16", (7, 5), True, "sdpa", "Ampere"),
        ("bfloat16", (9, 0), False, "sdpa", "flash-attn is not installed"),
        ("bfloat16", (9, 0), True, "flash_attention_2", "flash-attn installed"),
    ],
)
def test_the_attention_on_a_gpu_and_its_reason(
    monkeypatch, dtype, capability, installed, backend, reason
):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    monkeypatch.setattr("kd.models.placement.find_spec", lambda name: installed or None)
    cuda = torch.device("cuda:0")
    found = choose_attention(Placement(dtype=dtype), cuda, LlamaForCausalLM)
    assert found.backend == backend
    assert reason in found.reason


@pytest.mark.parametrize(
    ("architecture", "backend"),
    [(T5ForConditionalGeneration, "sdpa"), (BloomForCausalLM, "eager")],
)
def test_an_architecture_is_asked_for_nothing_that_it_lacks(monkeypatch, architecture, backend):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    monkeypatch.setattr("kd.models.placement.find_spec", lambda name: True)
    found = choose_attention(Placement(dtype="bfloat16"), torch.device("cuda:0"), architecture)
    assert found.backend == backend
    assert f"{architecture.__name__} has no such attention" in found.reason


def test_a_gpu_that_torch_cannot_use_is_refused(monkeypatch):
    if torch.cuda.is_available():
        pytest.skip("torch can use the GPU here")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    with pytest.raises(ModelError, match=r"has GPU 3, but this build of torch .* --gpus 0"):
        pick_device()
    monkeypatch.setenv("KD_DEVICE", "cpu")
    assert pick_device().type == "cpu"


def test_a_model_that_memory_does_not_hold_says_what_would_take_less(folder, monkeypatch):
    def no_room(self, device):
        raise torch.OutOfMemoryError

    monkeypatch.setattr(PreTrainedModel, "to", no_room)
    with pytest.raises(ModelError, match=r"out of memory while it was loaded\..*'load: {dtype"):
        load_model(folder)


def test_newer_keys_are_not_written_where_they_are_not_used():
    assert Generation().model_dump(mode="json") == {"max_new_tokens": 32, "batch_size": 32}
