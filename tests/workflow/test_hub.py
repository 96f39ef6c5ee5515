"""The whole chain with models and rows of the hub, from a cache in the hub's format, offline."""

import json

import pytest

from tests.hub.caches import HubCache
from tests.hub.test_datasets import SQUAD_CARD, squad
from tests.workflow.conftest import copy_checkout, job_counts

pytestmark = [pytest.mark.workflow, pytest.mark.slow, pytest.mark.xdist_group("own-checkouts")]

EXPERIMENT = """\
name: fetched
datasets:
  squad:
    source: hub
    repo: org/squad
    revision: {rows}
    task: qa
    metric: f1
    hub_splits:
      train: {{split: train, hold_out: 0.2, part: kept}}
      validation: {{split: train, hold_out: 0.2, part: held_out}}
      test: validation
    fields: {{answers: answers.text, title: title}}
teachers:
  llama:
    source: hub
    repo: org/chat
    revision: {teacher}
    shots: 1
    prompt: {{style: chat, system: Answer briefly., titles: [squad]}}
    scale: {{parameters: 1.0e+4, vocabulary: 400}}
students:
  opt:
    source: hub
    repo: org/opt
    revision: refs/pr/1
    scale: {{parameters: 1.0e+4, vocabulary: 400}}
methods:
  teacher_text: {{loss: none}}
  uld: {{loss: uld, weight: 1.5, reduction: sequence}}
training: {{epochs: 1, batch_size: 4, learning_rate: 1.0e-3, max_length: 1024, validations: 1}}
training_on: {{squad: {{batch_size: 2}}}}
generation: {{max_new_tokens: 6, batch_size: 4}}
tables:
  table2: {{}}
"""


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    """A checkout with an experiment of the hub, and a cache that holds all it needs."""
    root = tmp_path_factory.mktemp("fetched")
    store = HubCache(root / "hf")
    commits = {
        "teacher": store.model("llama", "org/chat", "main"),
        "rows": store.dataset(
            "org/squad",
            {
                "plain_text/train-0.parquet": [squad(n) for n in range(20)],
                "plain_text/validation-0.parquet": [squad(n, 3) for n in range(30, 34)],
            },
            card=SQUAD_CARD,
        ),
    }
    store.model("opt", "org/opt", "refs/pr/1")
    copy = copy_checkout(root / "kd")
    (copy.path / "experiments" / "fetched.yaml").write_text(EXPERIMENT.format(**commits))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_HOME", str(root / "hf"))
        patch.setenv("HF_HUB_OFFLINE", "1")
        yield copy


def test_checked_planned_fetched_and_distilled(checkout):
    checked = checkout.run("kd", "check", "fetched")
    assert checked.returncode == 0, checked.stdout
    assert "'revision: refs/pr/1' floats" in checked.stdout
    config = ("--config", "experiment=fetched")
    planned = checkout.snakemake("-n", "--quiet", "rules", *config, "--", "results/table2.csv")
    assert job_counts(planned.stdout)["fetch"] == 2
    fetched = checkout.snakemake("sources", *config)
    assert fetched.returncode == 0, fetched.stdout
    done = checkout.snakemake("results/table2.csv", *config)
    assert done.returncode == 0, done.stdout
    assert (checkout.path / "results" / "table2.csv").is_file()
    again = checkout.snakemake("-n", "--quiet", "rules", *config, "--", "results/table2.csv")
    assert "Nothing to be done" in again.stdout

    folder = checkout.path / "results" / "fetched"
    manifest = json.loads((folder / "hub/opt/fetch.manifest.json").read_text())
    assert len(manifest["notes"]["commit"]) == 40
    run = json.loads(
        (folder / "runs/squad/llama/opt/uld/f100/s0/distill.manifest.json").read_text()
    )
    assert run["hashed"]["inputs"]["student"]["identity"] == manifest["identity"]
    assert run["hashed"]["spec"]["training"]["batch_size"] == 2


def test_the_audit_refuses_what_floats_and_nothing_else(checkout):
    """It renders the chat's prompts again, and follows the chain into what was fetched."""
    done = checkout.run("kd", "audit", "experiment", "fetched", "--json")
    report = json.loads(done.stdout[done.stdout.index("{") :])
    failed = [one for one in report["findings"] if one["status"] == "fail"]
    assert [(one["check"][0], one["rule"]) for one in failed] == [("D", "revisions")], failed
    assert "refs/pr/1" in failed[0]["evidence"]
    rows = [one for one in report["findings"] if one["rule"] == "rows"]
    assert any(one["status"] == "pass" for one in rows)
