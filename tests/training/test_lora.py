"""Adapters: what is trained, and that merged and kept ones are the same student."""

import json

import pytest
import torch

from kd.errors import ModelError
from kd.experiment.methods import Lora, Method
from kd.models.adapters import ADAPTER, BASE, Adapters
from kd.models.loading import load_model
from kd.provenance.manifest import path_digest
from kd.resume.checkpoints import CheckpointFolder
from kd.training.student import restore_trained, trained_weights

KINDS = ["llama", "opt", "gpt_neox", "t5"]
ULD = Method(loss="uld")


def quiet(step, note):
    pass


def adapted(setup, architecture, **lora):
    """A loop whose student has adapters from the start: the optimiser knows nothing else."""
    from kd.training.loop import Loop

    made = setup(architecture, ULD)
    adapters = Adapters(made.model, Lora(rank=4, alpha=16, **lora), seed=3)
    old = made.loop
    made.loop = Loop(
        made.model,
        made.objective,
        made.material,
        training=old._training.model_copy(update={"learning_rate": 5e-2}),
        seed=3,
        adapters=adapters,
    )
    return made


def logits(model):
    model.train(False)
    inputs = {"input_ids": torch.tensor([[5, 6, 7, 8]])}
    if model.config.is_encoder_decoder:
        inputs["decoder_input_ids"] = torch.tensor([[0, 9, 10]])
    with torch.no_grad():
        return model(**inputs).logits


def saved(model, tokenizer, folder):
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("architecture", KINDS)
def test_merged_and_kept_adapters_are_the_student_that_was_trained(
    setup, tokenizer, tmp_path, architecture
):
    base = saved(setup(architecture, ULD).model, tokenizer, tmp_path / "base")
    before = logits(load_model(base)[0])
    made = adapted(setup, architecture, merge=False)
    torch.testing.assert_close(logits(made.model), before)  # new adapters change nothing
    made.loop.run(CheckpointFolder(tmp_path / "checkpoints", "f"), quiet)
    restore_trained(made.model, made.loop.selected_weights())
    trained = logits(made.model)
    assert (trained - before).abs().max() > 1e-2

    kept = tmp_path / "kept"
    kept.mkdir()
    made.loop.adapters.write(tokenizer, path_digest(base), kept)
    torch.testing.assert_close(logits(load_model(kept, base)[0]), trained, rtol=1e-4, atol=1e-4)

    made.loop.adapters._settings = Lora(merge=True)
    merged = tmp_path / "merged"
    merged.mkdir()
    made.loop.adapters.write(tokenizer, path_digest(base), merged)
    plain, _ = load_model(merged)
    assert not (merged / ADAPTER).exists()
    assert set(plain.state_dict()) == set(load_model(base)[0].state_dict())
    torch.testing.assert_close(logits(plain), trained, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("architecture", KINDS)
def test_only_adapters_are_trained_and_kept_in_checkpoints(setup, tmp_path, architecture):
    made = adapted(setup, architecture)
    frozen = {
        name: weight.detach().clone()
        for name, weight in made.model.named_parameters()
        if not weight.requires_grad
    }
    assert frozen and all("lora_" not in name for name in frozen)
    assert trained_weights(made.model) and all("lora_" in n for n in trained_weights(made.model))
    made.loop.run(CheckpointFolder(tmp_path, "f"), quiet)
    for name, weight in made.model.named_parameters():
        if name in frozen:
            assert torch.equal(weight, frozen[name]), name
    head = made.model.get_output_embeddings()
    assert type(head) is torch.nn.Linear


class Killed(Exception):
    pass


def test_a_resumed_run_with_adapters_ends_in_the_same_weights(setup, tmp_path):
    whole = adapted(setup, "llama")
    whole.loop.run(CheckpointFolder(tmp_path / "a", "f"), quiet)

    def killed(step, note):
        if step == 3:
            raise Killed

    checkpoints = CheckpointFolder(tmp_path / "b", "f")
    with pytest.raises(Killed):
        adapted(setup, "llama").loop.run(checkpoints, killed)
    kept = checkpoints.newest()
    assert all("lora_" in name for name in kept.tensors["model"])
    resumed = adapted(setup, "llama")
    resumed.loop.run(checkpoints, quiet)
    for name, weight in resumed.loop.selected_weights().items():
        assert torch.equal(weight, whole.loop.selected_weights()[name]), name


def test_adapters_without_their_weights_or_with_others_are_refused(setup, tokenizer, tmp_path):
    made = adapted(setup, "llama", merge=False)
    base = saved(setup("llama", ULD).model, tokenizer, tmp_path / "base")
    kept = tmp_path / "kept"
    kept.mkdir()
    made.loop.adapters.write(tokenizer, path_digest(base), kept)
    with pytest.raises(ModelError, match="--base FOLDER"):
        load_model(kept)
    other = setup("llama", ULD).model
    with torch.no_grad():
        next(other.parameters()).add_(1.0)
    with pytest.raises(ModelError, match="not the weights that the adapters"):
        load_model(kept, saved(other, tokenizer, tmp_path / "other"))
    (kept / BASE).unlink()
    with pytest.raises(ModelError, match="does not say whose adapters"):
        load_model(kept, base)


def test_what_is_written_names_no_place_and_is_the_same_twice(setup, tokenizer, tmp_path):
    texts = []
    for name in ("a", "b"):
        made = adapted(setup, "opt", merge=False, targets=["q_proj", "v_proj", "k_proj"])
        folder = tmp_path / name
        folder.mkdir()
        made.loop.adapters.write(tokenizer, "0" * 64, folder)
        texts.append((folder / ADAPTER).read_text())
    assert texts[0] == texts[1]
    assert json.loads(texts[0])["target_modules"] == ["k_proj", "q_proj", "v_proj"]
    assert str(tmp_path) not in texts[0]
    assert path_digest(tmp_path / "a") == path_digest(tmp_path / "b")


def test_layers_that_are_not_there_are_refused(setup):
    with pytest.raises(ModelError, match=r"'lora.targets' do not fit LlamaForCausalLM"):
        Adapters(setup("llama", ULD).model, Lora(targets=["query_key_value"]), seed=0)


def test_a_method_without_adapters_is_written_as_before():
    assert "lora" not in Method(loss="uld").model_dump(mode="json")
    method = Method(loss="uld", lora=Lora(rank=8))
    assert method.model_dump(mode="json")["lora"]["rank"] == 8
    assert not method.keeps_adapters
    assert Method(loss="uld", lora=Lora(merge=False)).keeps_adapters
