"""A student as a folder of the hub: it loads, its card parses, its bytes are the recorded ones."""

import pytest
import torch
from huggingface_hub import ModelCard
from transformers import AutoModelForCausalLM, AutoTokenizer
from typer.testing import CliRunner

from kd.cli import app
from kd.errors import ArtifactError
from kd.exports import model_card
from kd.exports.model_folder import write_model_folder
from kd.exports.subject import ExportError
from tests.audit import fabrication
from tests.audit.fabrication import fabricate


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The experiment made by hand, with a student that really loads."""
    from tests.exports.loadable import write_loadable_model

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(fabrication, "write_model", write_loadable_model)
        return fabricate(tmp_path_factory.mktemp("model") / "world")


@pytest.fixture(scope="module")
def folder(trained, tmp_path_factory):
    out = tmp_path_factory.mktemp("hub") / "student"
    write_model_folder(trained.run(), out, licence="apache-2.0", local_names=False)
    return out


def test_transformers_loads_it(trained, folder):
    model = AutoModelForCausalLM.from_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    ids = tokenizer("the answer", return_tensors="pt").input_ids
    original = AutoModelForCausalLM.from_pretrained(trained.run() / "model")
    with torch.no_grad():
        assert torch.equal(model(ids).logits, original(ids).logits)


def test_the_hub_reads_its_card(folder):
    data = ModelCard.load(folder / "README.md").data
    assert data.pipeline_tag == "text-generation"
    assert data.license == "apache-2.0"
    found = {result.metric_type: result.metric_value for result in data.eval_results}
    assert set(found) == {"f1", "exact_match"}
    assert all(0 <= value <= 100 for value in found.values())


def test_generated_rows_do_not_pass_for_the_hubs_dataset(folder):
    results = ModelCard.load(folder / "README.md").data.eval_results
    assert {result.dataset_type for result in results} == {"generated-squad"}


def test_a_card_without_a_licence_says_so(trained, tmp_path):
    write_model_folder(trained.run(), tmp_path / "out", licence="", local_names=False)
    card = ModelCard.load(tmp_path / "out" / "README.md")
    assert card.data.license is None
    assert "the licence" in card.text


def test_what_came_from_the_hub_is_named_with_its_licence():
    class Made:
        def __init__(self, spec, **notes):
            self.spec, self.notes = spec, notes

    class Stages:
        made = {
            "fetch": [
                Made({"repo": "org/teacher"}, commit="c" * 40, licence="llama2"),
                Made({"repo": "org/student"}, commit="d" * 40, licence=None),
            ],
            "data": [
                Made({"dataset": {"source": "hub", "repo": "org/rows"}}, licence="cc-by-nc-4.0"),
                Made({"dataset": {"source": "micro"}}),
            ],
        }

        def of_stage(self, stage):
            return self.made[stage]

    lines = model_card._made_of(Stages())
    assert "| org/teacher | cccccccccccc | llama2 |" in lines
    assert "| org/student | dddddddddddd | not stated |" in lines
    assert "| org/rows | not known | cc-by-nc-4.0 |" in lines
    Stages.made = {"fetch": [], "data": []}
    assert model_card._made_of(Stages()) == []


def test_nothing_names_this_machine(trained, folder):
    for file in (*folder.glob("*.md"), *folder.glob("*.json")):
        assert str(trained.root) not in file.read_text(encoding="utf-8")


def test_changed_weights_are_not_exported(trained, tmp_path):
    world = trained.copy(tmp_path / "world")
    with (world.run() / "model" / "config.json").open("a") as file:
        file.write("\n")
    with pytest.raises(ArtifactError, match="changed since"):
        write_model_folder(world.run(), tmp_path / "out", licence="", local_names=False)
    assert not (tmp_path / "out").exists()


def test_a_folder_that_is_no_run_is_refused(trained, tmp_path):
    with pytest.raises((ArtifactError, ExportError)):
        write_model_folder(
            trained.results / "models" / "opt", tmp_path / "out", licence="", local_names=False
        )


def test_the_command(trained, tmp_path, monkeypatch):
    monkeypatch.chdir(trained.root)
    place = trained.run().relative_to(trained.root)
    out = tmp_path / "student"
    done = CliRunner().invoke(app, ["export", "model", str(place), "--out", str(out)])
    assert done.exit_code == 0, done.output
    assert "model.safetensors" in done.stdout
