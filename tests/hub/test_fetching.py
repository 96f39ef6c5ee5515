"""Models of the hub: fetched at a commit, linked, verified, and used like any other."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file

from kd.check.models import Description
from kd.data.sources import build_dataset
from kd.errors import ArtifactError, ModelError
from kd.experiment.fetching import FetchSpec
from kd.experiment.logits import Logits
from kd.experiment.models import PromptForm
from kd.experiment.schema import Generation
from kd.experiment.stages import AnswerSpec, DataSpec, ExtractSpec
from kd.hub.access import HubError
from kd.hub.models import fetch_model
from kd.logits import LogitReader
from kd.models.encoding import encode_prompt
from kd.models.loading import load_model
from kd.models.offsets import encode_answer_with_ends
from kd.models.vocabulary import token_texts
from kd.provenance.manifest import path_digest, read_manifest
from kd.teacher.answers import read_answers, write_answers
from kd.teacher.extraction import extract_logits
from tests.hub.caches import CONFIGURATIONS, as_pickle, build


def fetch(out, repo, revision="main", **options):
    fetch_model(FetchSpec(repo=repo, revision=revision, **options), out)
    return read_manifest(out / "fetch.manifest.json")


@pytest.mark.parametrize("family", sorted(CONFIGURATIONS))
def test_each_architecture_is_fetched_and_loads_with_its_tokenizer(cache, tmp_path, family):
    commit = cache.model(family, "org/tiny")
    manifest = fetch(tmp_path / "out", "org/tiny")
    assert manifest["notes"]["commit"] == commit
    assert manifest["notes"]["licence"] == "apache-2.0"
    model, tokenizer = load_model(tmp_path / "out" / "model")
    assert model.config.is_encoder_decoder == (family == "mt5")
    assert tokenizer.encode("Oslo", add_special_tokens=False)


def test_files_are_links_whose_content_is_what_the_manifest_says(cache, tmp_path):
    cache.model("opt", "org/tiny")
    manifest = fetch(tmp_path / "out", "org/tiny")
    folder = tmp_path / "out" / "model"
    assert (folder / "model.safetensors").is_symlink()
    assert manifest["hashed"]["outputs"]["model"] == path_digest(folder)
    shutil.copytree(folder, tmp_path / "copied")  # follows the links
    assert path_digest(tmp_path / "copied") == path_digest(folder)


def test_the_same_commit_under_two_names_has_the_same_bytes(cache, tmp_path):
    commit = cache.model("opt", "org/tiny", "main")
    named, pinned = fetch(tmp_path / "a", "org/tiny"), fetch(tmp_path / "b", "org/tiny", commit)
    assert named["hashed"]["outputs"] == pinned["hashed"]["outputs"]
    assert named["identity"] != pinned["identity"]  # a branch is no commit


def test_an_altered_cache_is_noticed_before_use(cache, tmp_path):
    cache.model("opt", "org/tiny")
    fetch(tmp_path / "out", "org/tiny")
    (tmp_path / "out/model/config.json").resolve().write_text("{}")
    write_data(tmp_path / "data")
    spec = AnswerSpec(dataset="d", shots=0, seed=0, generation=Generation())
    with pytest.raises(ArtifactError, match="changed since stage 'fetch' wrote it"):
        write_answers(spec, tmp_path / "out/model", tmp_path / "data", tmp_path / "answers.parquet")


def test_a_fetched_teacher_answers_a_chat_and_its_logits_are_stored(cache, tmp_path):
    """What follows the fetching takes the folder as it takes any other."""
    commit = cache.model("llama", "org/chat")
    fetch(tmp_path / "hub", "org/chat")
    write_data(tmp_path / "data")
    form = PromptForm(style="chat", system="Answer briefly.", title=True)
    spec = AnswerSpec(
        dataset="d", shots=1, prompt=form, seed=0, generation=Generation(max_new_tokens=4)
    )
    out = tmp_path / "answers.parquet"
    write_answers(spec, tmp_path / "hub/model", tmp_path / "data", out)
    prompt = read_answers(out)[0].prompt
    assert prompt.startswith("[INST] Answer briefly.\n\nTitle: T\nContext: Ada ")
    assert prompt.count("[INST]") == 2 and prompt.endswith("Answer: [/INST]")
    assert "[/INST] Ada</s><s>[INST]" in prompt
    extract_logits(ExtractSpec(logits=Logits()), tmp_path / "hub/model", out, tmp_path / "logits")
    manifest = read_manifest(tmp_path / "extract.manifest.json")
    fetched = read_manifest(tmp_path / "hub" / "fetch.manifest.json")
    assert manifest["hashed"]["inputs"]["model"]["identity"] == fetched["identity"]
    assert LogitReader(tmp_path / "logits").index.origin.revision == commit


def write_data(folder):
    """Rows as the data stage leaves them."""
    files = folder / "files"
    files.mkdir(parents=True)
    for split in ("train", "validation", "test"):
        lines = (
            {"id": f"{split}{n}", "title": "T", "context": f"Ada {n}", "question": "who"}
            | {"answers": ["Ada"]}
            for n in range(3)
        )
        (files / f"{split}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    dataset = {
        "source": "files",
        "task": "qa",
        "metric": "f1",
        "paths": {split: f"{split}.jsonl" for split in ("train", "validation", "test")},
        "fields": {"title": "title"},
    }
    spec = DataSpec.model_validate({"name": "d", "dataset": dataset, "seed": 0})
    build_dataset(spec, files, folder)


def test_safetensors_at_another_revision(cache, tmp_path):
    """Old repositories have a pickle on main, and safetensors in a pull request."""
    folder = cache.snapshot("org/old", "main")
    build("opt", folder)
    as_pickle(folder)
    cache.seal(folder)
    commit = cache.model("opt", "org/old", "refs/pr/3")
    with pytest.raises(HubError, match=r"holds no safetensors.*refs/pr/N.*convert_pickle") as found:
        fetch(tmp_path / "none", "org/old")
    assert found.value.problem == "refused"
    assert not (tmp_path / "none" / "model").exists()
    assert fetch(tmp_path / "a", "org/old", "refs/pr/3")["notes"]["commit"] == commit
    assert fetch(tmp_path / "b", "org/old", commit)["notes"]["commit"] == commit


@pytest.mark.parametrize("family", ["opt", "mt5"])
def test_a_pickle_is_converted_when_it_is_asked_for(cache, tmp_path, family):
    folder = cache.snapshot("org/old", "main")
    build(family, folder)
    weights = load_file(folder / "model.safetensors")
    as_pickle(folder)
    cache.seal(folder)
    manifest = fetch(tmp_path / "out", "org/old", convert_pickle=True)
    assert manifest["notes"]["weights"] == "converted from a pickle"
    names = {file.name for file in (tmp_path / "out/model").iterdir()}
    assert "model.safetensors" in names and "pytorch_model.bin" not in names
    converted = load_file(tmp_path / "out/model/model.safetensors")
    assert converted.keys() == weights.keys()
    assert all(torch.equal(converted[name], weights[name]) for name in weights)


def test_a_pickle_that_lacks_weights_is_refused(cache, tmp_path):
    folder = cache.snapshot("org/part", "main")
    build("opt", folder)
    as_pickle(folder)
    weights = torch.load(folder / "pytorch_model.bin", weights_only=True)
    lost = next(name for name in weights if "fc1.weight" in name)
    torch.save({k: v for k, v in weights.items() if k != lost}, folder / "pytorch_model.bin")
    cache.seal(folder)
    with pytest.raises(ModelError, match=r"lacks 1 of the model's weights.*fc1\.weight"):
        fetch(tmp_path / "out", "org/part", convert_pickle=True)
    assert not (tmp_path / "out/model").exists()


class Harmful:
    """What a pickle can do when it is read."""

    def __reduce__(self):
        return (print, ("code of a pickle ran",))


def test_a_pickle_that_would_run_code_is_refused(cache, tmp_path, capsys):
    folder = cache.snapshot("org/bad", "main")
    build("opt", folder)
    (folder / "model.safetensors").unlink()
    torch.save({"weight": Harmful()}, folder / "pytorch_model.bin")
    with pytest.raises(ModelError, match="its pickle cannot be converted"):
        fetch(tmp_path / "out", "org/bad", convert_pickle=True)
    assert "code of a pickle ran" not in capsys.readouterr().out


def test_a_missing_part_of_the_weights_is_named(cache, tmp_path):
    folder = cache.snapshot("org/parts", "main")
    model = build("opt", folder)
    (folder / "model.safetensors").unlink()
    model.save_pretrained(folder, max_shard_size="10KB")
    shards = sorted(folder.glob("model-*-of-*.safetensors"))
    assert len(shards) > 1
    fetch(tmp_path / "whole", "org/parts")
    shards[1].unlink()
    with pytest.raises(HubError, match=f"files of weights .*{shards[1].name}"):
        fetch(tmp_path / "out", "org/parts")


def test_code_and_other_frameworks_stay_behind(cache, tmp_path):
    folder = cache.snapshot("org/full", "main")
    build("opt", folder)
    (folder / "original").mkdir()
    for name in ("modeling_own.py", "flax_model.msgpack", "consolidated.safetensors"):
        (folder / name).write_bytes(b"?")
    fetch(tmp_path / "out", "org/full")
    names = {file.name for file in (tmp_path / "out/model").iterdir()}
    assert not names & {"modeling_own.py", "flax_model.msgpack", "consolidated.safetensors"}


def test_a_model_of_custom_code_is_refused_without_running_it(cache, tmp_path):
    folder = cache.snapshot("org/custom", "main")
    build("opt", folder)
    config = json.loads((folder / "config.json").read_text())
    config |= {"model_type": "own", "auto_map": {"AutoConfig": "configuration_own.OwnConfig"}}
    (folder / "config.json").write_text(json.dumps(config))
    fetch(tmp_path / "out", "org/custom")
    with pytest.raises(ModelError, match="cannot be loaded"):
        load_model(tmp_path / "out" / "model")


def test_a_tokenizer_of_before_tokenizer_json(cache, tmp_path):
    """OPT's repositories hold GPT-2's two files, and no tokenizer.json."""
    folder = cache.snapshot("org/opt", "main")
    build("opt", folder)
    whole = json.loads((folder / "tokenizer.json").read_text())["model"]
    vocabulary = whole["vocab"] | {"</s>": len(whole["vocab"])}
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    merges = [pair if isinstance(pair, str) else " ".join(pair) for pair in whole["merges"]]
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *merges]) + "\n")
    special = {"bos_token": "</s>", "eos_token": "</s>", "unk_token": "</s>", "pad_token": "<pad>"}
    described = special | {"tokenizer_class": "GPT2Tokenizer", "add_bos_token": True}
    (folder / "tokenizer_config.json").write_text(json.dumps(described))
    (folder / "special_tokens_map.json").write_text(json.dumps(special))
    (folder / "tokenizer.json").unlink()
    fetch(tmp_path / "out", "org/opt")
    _, tokenizer = load_model(tmp_path / "out" / "model")
    ids, ends = encode_answer_with_ends(tokenizer, "Oslo")
    assert tokenizer.decode(ids) == " Oslo" and len(ends) == len(ids)
    assert tokenizer.eos_token == "</s>"
    assert encode_prompt(tokenizer, "Oslo", False)[0] == tokenizer.bos_token_id
    assert token_texts(tokenizer, len(tokenizer))[ids[0]]
    found = Description(tmp_path / "out" / "model")
    assert found.special("eos_token") == "</s>" and len(found.tokens or {}) == len(vocabulary)
