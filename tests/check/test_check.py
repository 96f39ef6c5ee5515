"""`kd check`: everything that would stop an experiment here, at once, before any job."""

import json
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from kd.check.experiment import check_experiment
from kd.check.findings import Finding, counted, ordered
from kd.check.memory import SPARE, student_bytes, teacher_bytes
from kd.check.models import Asked, Description
from kd.check.pairs import pair_findings
from kd.cli import app
from kd.experiment.loading import load_experiment
from kd.experiment.models import Scale
from kd.experiment.placement import Placement
from kd.experiment.schema import Experiment
from tests.hub.caches import HubCache, as_pickle, build, commit_of
from tests.hub.conftest import cache, hub  # noqa: F401
from tests.hub.server import Repo

ROOT = Path(__file__).resolve().parents[2]
COMMIT = commit_of("checked")
EXPERIMENT = {
    "name": "mine",
    "datasets": {
        "squad": {
            "source": "hub",
            "repo": "org/rows",
            "revision": COMMIT,
            "task": "qa",
            "metric": "f1",
            "hub_splits": {split: split for split in ("train", "validation", "test")},
        }
    },
    "teachers": {
        "llama": {
            "source": "hub",
            "repo": "org/teacher",
            "revision": COMMIT,
            "scale": {"parameters": 1e9, "vocabulary": 1000},
        }
    },
    "students": {
        "opt": {
            "source": "hub",
            "repo": "org/student",
            "revision": COMMIT,
            "scale": {"parameters": 1e8, "vocabulary": 1000},
        }
    },
    "methods": {"teacher_text": {"loss": "none"}},
    "training": {"learning_rate": 1e-4, "max_length": 400},
    "tables": {"table2": {}},
}


@pytest.fixture
def world(hub, tmp_path):  # noqa: F811
    """A hub on which everything is in order, and the experiment's file."""

    class World:
        file = tmp_path / "mine.yaml"

        def __init__(self) -> None:
            for name, family in (("teacher", "llama"), ("student", "opt")):
                build(family, tmp_path / name)
            self.repos = hub.repos
            self.folder = tmp_path
            card = {"license": "apache-2.0"}
            for name in ("teacher", "student"):
                folder = tmp_path / name
                hub.repos["models", f"org/{name}"] = Repo(folder, {"main": COMMIT}, card=card)
            hub.repos["datasets", "org/rows"] = Repo(None, {"main": COMMIT}, card=card)

        def check(self, gpu: float | None = 80e9, **changes) -> list[Finding]:
            self.file.write_text(json.dumps(EXPERIMENT))
            return check_experiment(load_experiment(self.file, changes), lambda: gpu)

        def told(self, **changes) -> str:
            """The findings that are not in order."""
            found = self.check(**changes)
            return "\n".join(str(one) for one in found if one.severity != "ok")

        def configure(self, name: str, file: str = "config.json", **keys) -> None:
            path = self.folder / name / file
            path.write_text(json.dumps(json.loads(path.read_text()) | keys))

    return World()


def test_in_order(world, hub):  # noqa: F811
    found = world.check()
    assert {one.severity for one in found} == {"ok"}, found
    assert [one.subject for one in found] == [
        "teachers.llama",
        "students.opt",
        "datasets.squad",
        "machine",
    ]
    assert not any("model.safetensors" in path and "resolve" in path for path in hub.asked)


def test_all_findings_at_once_and_the_worst_first(world):
    world.repos["models", "org/teacher"].gated = True
    del world.repos["datasets", "org/rows"]
    world.repos["models", "org/student"].card = {}
    lines = world.told(students={"opt": {"revision": "main"}}).splitlines()
    assert [line.split(":")[0] for line in lines] == [
        "error    teachers.llama",
        "error    datasets.squad",
        "warning  students.opt",
        "unknown  students.opt",
    ]
    gated, missing, floats, licence = lines
    assert "is gated, and no token" in gated and "knows no such repository" in missing
    assert "floats" in floats and "`kd pin mine`" in floats and "none is stated" in licence


@pytest.mark.parametrize("licence", ["cc-by-nc-sa-4.0", "llama2", "bigscience-bloom-rail-1.0"])
def test_a_licence_with_conditions(world, licence):
    world.repos["datasets", "org/rows"].card = {"license": [licence]}
    assert f"warning  datasets.squad: licence '{licence}' sets conditions" in world.told()


def test_weights_that_are_a_pickle(world):
    as_pickle(world.folder / "student")
    assert "error    students.opt" in (told := world.told()) and "no safetensors" in told
    assert world.told(students={"opt": {"convert_pickle": True}}) == ""


def test_a_vocabulary_that_is_not_the_models(world):
    world.configure("student", vocab_size=100)
    assert "the model knows 100 tokens: they do not belong together" in world.told()


def test_a_loss_that_compares_columns_needs_one_tokenizer(tmp_path):
    changed = EXPERIMENT | {"methods": {"kl": {"loss": "forward_kl"}, "uld": {"loss": "uld"}}}
    changed["tables"] = {"table2": {"baseline": "uld"}}
    experiment = Experiment.model_validate(changed)

    def found(teacher: tuple[list[str], int], student: tuple[list[str], int]) -> list[Finding]:
        described = {}
        for key, (words, width) in (("teachers.llama", teacher), ("students.opt", student)):
            folder = tmp_path / key
            folder.mkdir(exist_ok=True)
            tokens = {word: number for number, word in enumerate(words)}
            (folder / "vocab.json").write_text(json.dumps(tokens))
            (folder / "config.json").write_text(json.dumps({"vocab_size": width}))
            described[key] = Description(folder)
        return list(pair_findings(experiment, described))

    (other,) = found((["a", "b"], 2), (["b", "a"], 2))
    assert (other.severity, other.subject) == ("error", "methods.kl")
    assert "llama and opt have other tokens" in other.text
    (wider,) = found((["a"], 64), (["a"], 128))
    assert "have output layers of 64 and 128 columns" in wider.text
    assert not found((["a"], 64), (["a"], 64))
    assert not list(pair_findings(experiment, {}))  # nothing is known


def test_an_end_of_text_that_is_no_token(world):
    world.configure("student", "tokenizer_config.json", eos_token="<nothing>")
    assert "error    students.opt: its token '<nothing>', which ends a text" in world.told()


def test_a_context_that_is_too_short(world):
    world.configure("student", max_position_embeddings=300)
    told = world.told()
    assert "warning  students.opt: reads 300 tokens, fewer than 'training.max_length' (400)" in told
    assert "may not hold the longest prompts" in told
    told = world.told(students={"opt": {"shots": 2}})
    assert "error    students.opt: reads 300 tokens, and that does not hold the mean prompt" in told
    told = world.told(generation={"max_new_tokens": 300})
    assert "reads 300 tokens, but answers may have 300" in told


def test_positions_without_limit(world, tmp_path):
    build("mt5", tmp_path / "encoder-decoder")
    world.repos["models", "org/student"].folder = tmp_path / "encoder-decoder"
    assert world.told(students={"opt": {"shots": 5}}) == ""


def test_a_chat_with_a_template(world):
    asked = {"style": "chat", "system": "Be brief."}
    assert world.told(teachers={"llama": {"prompt": asked}}) == ""


def test_a_chat_without_a_template(world):
    (world.folder / "teacher" / "chat_template.jinja").unlink()
    told = world.told(teachers={"llama": {"prompt": {"style": "chat"}}})
    assert "error    teachers.llama: its tokenizer has no chat template" in told


def test_code_of_its_own_is_named(world):
    world.configure("teacher", auto_map={"AutoConfig": "own.Own"})
    assert "warning  teachers.llama: brings code of its own, which is never run" in world.told()


def test_a_gpu_that_is_too_small(world):
    told = world.told(gpu=3e9)
    assert "error    teachers.llama: needs about 6.8 GB to answer, but the GPU has 3.0 GB" in told
    assert "error    students.opt" in told and "fused_head" in told
    assert "no GPU is visible here, so memory is not compared" in world.told(gpu=None)


def test_a_teacher_takes_what_it_is_loaded_in(world):
    told = world.told(gpu=5e9, teachers={"llama": {"load": {"dtype": "bfloat16"}}})
    assert "teachers.llama" not in told
    assert teacher_bytes(Scale(parameters=1e9, vocabulary=10), None) == 1e9 * 4 * 1.2 + SPARE
    four = Placement(dtype="bfloat16", quantisation="4bit")
    assert teacher_bytes(Scale(parameters=1e9, vocabulary=10), four) < 1e9 + SPARE


def needed(world, **training) -> float:
    world.check()
    experiment = load_experiment(world.file, {"training": training})
    student = experiment.students["opt"]
    asked = Asked("opt", False, student, ["squad"])
    need, where = student_bytes(experiment, asked, student.scale, None)
    assert where == "squad"
    return need


def test_logits_of_the_longest_rows_count_for_memory(world):
    each = 400 * 1000 * 12  # 'max_length' is less than a long row has
    assert needed(world) == 1e8 * 16 + 8 * each + SPARE
    assert needed(world, micro_batch=2) == 1e8 * 16 + 2 * each + SPARE
    assert needed(world, fused_head=True) == 1e8 * 16 + 1024 * 1000 * 12 + SPARE  # rows at once


def test_activations_count_where_the_configuration_is_known(world):
    experiment = load_experiment(world.file) if world.check() else None
    student = experiment.students["opt"]
    asked = Asked("opt", False, student, ["squad"])
    found = Description(world.folder / "student")
    layers, width = found.layers_and_width
    assert layers and width
    need, _ = student_bytes(experiment, asked, student.scale, found)
    assert need == pytest.approx(needed(world) + 2 * 34 * 8 * 400 * layers * width)


def test_a_teacher_that_runs_in_every_step_is_beside_the_student(world):
    live = {"live": {"loss": "uld", "responses": {"policy": "mixed"}}}
    assert "students.opt" not in world.told(gpu=7e9)
    assert "error    students.opt" in world.told(gpu=7e9, methods=live)


def test_a_model_of_unknown_size(world):
    assert "its size is not known" in world.told(students={"opt": {"scale": None}})


def test_a_folder_is_checked_like_a_repository(world):
    local = {"source": "local", "path": str(world.folder / "student")}
    local["scale"] = {"parameters": 1e8, "vocabulary": 1000}
    assert world.told(students={"opt": local}) == ""
    local["path"] = str(world.folder / "none")
    assert "has no readable config.json" in world.told(students={"opt": local})


def test_the_encoder_of_bertscore_warns(world):
    bertscore = {"model": "org/none", "revision": COMMIT, "layer": 1}
    told = world.told(evaluation={"metrics": ["f1", "bertscore"], "bertscore": bertscore})
    assert "warning  evaluation.bertscore" in told and "n/a" in told and "error" not in told


def test_offline_it_says_what_was_not_checked(world, tmp_path, monkeypatch):
    """From the cache alone: what is there is checked, the rest is named."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    store = HubCache(tmp_path / "hf")
    build("llama", store.snapshot("org/teacher", commit=COMMIT))
    told = world.told()
    assert "error    students.opt: model 'org/student' at" in told
    assert "is not in this machine's cache" in told
    assert "unknown  machine: the hub was not asked (offline)" in told
    assert "teachers.llama" not in told


def test_a_hub_that_does_not_answer_is_asked_once(world, hub):  # noqa: F811
    hub.close()
    found = world.check()
    assert sum("cannot be asked" in one.text for one in found) == 3
    assert any("was not asked (offline)" in one.text for one in found)


def test_worlds_of_their_own_have_no_findings(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: pytest.fail("not asked"))
    done = CliRunner().invoke(app, ["check", "micro"])
    assert done.exit_code == 0 and len(done.output.splitlines()) == 1


def test_errors_are_the_exit_status(cache):  # noqa: F811
    done = CliRunner().invoke(app, ["check", "paper"])
    assert done.exit_code == 1
    first, *findings, last = done.output.splitlines()
    assert first.startswith("paper: valid; tables table2") and "13 errors" in last
    assert all(line.split()[0] in ("error", "warning", "unknown", "ok") for line in findings)


def test_counts_and_order():
    found = [Finding("ok", "a", ""), Finding("error", "b", ""), Finding("ok", "c", "")]
    assert [one.subject for one in ordered(found)] == ["b", "a", "c"]
    assert counted(found) == "1 error, 2 in order"


def test_published_figures_that_cannot_be_read_are_found(tmp_path):
    experiment = load_experiment(ROOT / "experiments/sample.yaml")
    path = tmp_path / "theirs.csv"
    missing = experiment.model_copy(update={"published": str(path)})
    assert [
        str(path) in one.text
        for one in check_experiment(missing)
        if one.severity == "error" and one.subject == "published"
    ] == [True]
    path.write_text("dataset,value\nsquad,many\n")
    (found,) = (one for one in check_experiment(missing) if one.subject == "published")
    assert "line 2" in found.text and "missing" in found.text


def test_files_of_rows_that_are_not_there_are_found_and_those_of_another_folder_taken(tmp_path):
    def checked(*options: str):
        return CliRunner().invoke(app, ["check", "sample", *options])

    absent = checked("--config", f"data_root={tmp_path}")
    assert absent.exit_code == 1
    assert f"{tmp_path}" in absent.output and "no such file" in absent.output
    assert "the hub was not asked" not in absent.output
    for dataset in load_experiment(ROOT / "experiments/sample.yaml").datasets.values():
        for path in dataset.paths.values():
            (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / path).touch()
    there = checked("--config", f"data_root={tmp_path}")
    assert there.exit_code == 0 and "no such file" not in there.output
