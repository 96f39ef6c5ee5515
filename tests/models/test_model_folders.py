"""Model folders: what cannot be loaded is refused in a sentence."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from kd.errors import ModelError
from kd.experiment.models import TokenizerSpec
from kd.models.architectures import Vocabulary, build_model
from kd.models.loading import load_model
from kd.models.tokenizers import train_tokenizer


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "opt"
    tokenizer = train_tokenizer(TokenizerSpec(algorithm="byte_bpe", vocabulary=300), ["a cat"])
    model = build_model("opt", "tiny", Vocabulary.of(tokenizer), context=64, seed=0)
    model.save_pretrained(path)
    tokenizer.save_pretrained(path)
    return path


def test_weights_survive_the_round_trip(folder):
    model, tokenizer = load_model(folder)
    assert not model.training and model.dtype == torch.float32
    assert tokenizer.padding_side == "left" and tokenizer.pad_token_id is not None
    stored = load_file(folder / "model.safetensors")
    for name, weight in model.state_dict().items():
        if name in stored:
            assert torch.equal(weight, stored[name])


def test_a_missing_folder_is_refused(tmp_path):
    with pytest.raises(ModelError, match=r"no model here \(config\.json is missing\)"):
        load_model(tmp_path / "none")


def test_pickled_weights_are_refused(folder, tmp_path):
    copy = tmp_path / "pickled"
    copy.mkdir()
    for file in folder.iterdir():
        if file.suffix != ".safetensors":
            (copy / file.name).write_bytes(file.read_bytes())
    torch.save(load_file(folder / "model.safetensors"), copy / "pytorch_model.bin")
    with pytest.raises(ModelError, match="cannot be loaded"):
        load_model(copy)


def test_a_truncated_weights_file_is_refused(folder, tmp_path):
    copy = tmp_path / "short"
    copy.mkdir()
    for file in folder.iterdir():
        content = file.read_bytes()
        cut = len(content) // 2 if file.suffix == ".safetensors" else len(content)
        (copy / file.name).write_bytes(content[:cut])
    with pytest.raises(ModelError, match="cannot be loaded"):
        load_model(copy)


def test_weights_that_are_not_all_there_are_refused(folder, tmp_path):
    """The library would draw the others at random, and only warn."""
    copy = tmp_path / "partly"
    shutil.copytree(folder, copy)
    weights = load_file(copy / "model.safetensors")
    lost = next(name for name in weights if "fc1.weight" in name)
    del weights[lost]
    save_file(weights, copy / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"1 of the model's weights are not in its files.*fc1"):
        load_model(copy)


def test_code_of_a_model_is_never_asked_about(folder, tmp_path, monkeypatch):
    copy = tmp_path / "code"
    shutil.copytree(folder, copy)
    config = json.loads((copy / "config.json").read_text())
    config |= {"model_type": "own", "auto_map": {"AutoConfig": "own.Own"}}
    (copy / "config.json").write_text(json.dumps(config))
    (copy / "own.py").write_text("raise SystemExit('code of a model ran')")
    monkeypatch.setattr("builtins.input", lambda *_: "y")
    with pytest.raises(ModelError, match="cannot be loaded"):
        load_model(copy)
