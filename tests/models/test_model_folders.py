"""Model folders: what cannot be loaded is refused in a sentence."""

import pytest
import torch
from safetensors.torch import load_file

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
