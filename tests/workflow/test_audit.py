"""The audit of an experiment that really ran: no failure, tier 1, and a forger found out."""

import json
import shutil

import pytest

from kd.audit.chain import Chain
from kd.audit.places import input_places
from kd.evaluation.predictions import read_predictions, write_predictions
from kd.provenance.canonical import digest, file_digest

# One worker: the finished checkout is made once.
pytestmark = [pytest.mark.workflow, pytest.mark.xdist_group("workflow")]
RUN = "results/smoke/runs/squad/llama/opt/uld/f100/s0"
TABLE = "results/table2.csv"


def kd(checkout, *words):
    return checkout.run("python", "-m", "kd.cli", *words)


def findings(checkout, *words):
    done = kd(checkout, "audit", *words, "--json")
    return json.loads(done.stdout)["findings"]


def test_a_finished_experiment_gives_no_failure(finished):
    for words in (["table", TABLE, "--workflow"], ["experiment", "smoke"], ["run", RUN]):
        done = kd(finished, "audit", *words)
        assert done.returncode == 0, done.stdout


def test_inputs_lie_where_the_layout_says(finished):
    """The audit finds inputs by the layout; the stages were given the paths of the rules."""
    results = finished.path / "results" / "smoke"
    chain = Chain(results)
    for file in sorted(results.rglob("*.manifest.json")):
        folder = file.parent.relative_to(results).as_posix()
        if folder.startswith("mlruns"):
            continue
        artifact = chain.artifact(folder, file.name.removesuffix(".manifest.json"))
        for role, path in artifact.context["paths"].items():
            places = input_places(artifact.stage, folder, role)
            assert path.removeprefix("results/smoke/") in places, (artifact.key, role)


def test_a_repeat_from_the_predictions_reaches_tier_1(finished):
    found = findings(finished, TABLE, "--repeat", "1", "--from", "predictions")
    (repeat,) = [one for one in found if one["rule"] == "repeat"]
    assert (repeat["status"], repeat["details"]["tier"]) == ("pass", "identical bytes")


@pytest.mark.slow
def test_a_repeat_from_the_rows_reaches_tier_1(finished):
    cell = "method=uld"
    found = findings(finished, TABLE, "--cell", cell, "--repeat", "1", "--from", "rows")
    (repeat,) = [one for one in found if one["rule"] == "repeat"]
    assert (repeat["status"], repeat["details"]["tier"]) == ("pass", "identical bytes")
    assert "first difference" not in repeat["evidence"]


def test_who_forges_every_digest_is_found_by_a_repeat(edited):
    """Better predictions, scored, tabulated and tracked anew: nothing else can tell."""
    folder = edited.path / RUN / "eval" / "squad"
    backup = edited.path / "results.backup"
    shutil.copytree(edited.path / "results", backup, symlinks=True)
    try:
        _forge(edited, folder)
        found = findings(
            edited, TABLE, "--cell", "method=uld", "--repeat", "1", "--from", "predictions"
        )
        (first, *_) = [one for one in found if one["status"] == "fail"]
        assert first["rule"] == "repeat"
        assert not [one for one in found if one["status"] == "fail" and one["rule"] != "repeat"]
    finally:
        shutil.rmtree(edited.path / "results")
        shutil.move(backup, edited.path / "results")


def _forge(checkout, folder):
    path = folder / "predictions.parquet"
    better = [
        row.model_copy(update={"prediction": row.references[0]}) for row in read_predictions(path)
    ]
    write_predictions(better, path)
    file = folder / "predict.manifest.json"
    manifest = json.loads(file.read_text())
    manifest["hashed"]["outputs"] = {path.name: file_digest(path)}
    manifest["identity"] = digest(manifest["hashed"])
    file.write_text(json.dumps(manifest))
    target = f"{RUN}/eval/squad/scores.json"
    done = checkout.smoke(target, TABLE, "--forcerun", "score")
    assert done.returncode == 0, done.stdout


def test_explain_says_what_snakemake_would_do(edited):
    edited.edit("experiments/smoke.yaml", "epochs: 2", "epochs: 3")
    done = kd(edited, "explain", TABLE, "--workflow")
    assert "spec.training.epochs: 2 → 3" in done.stdout
    assert "7 artifacts would be made again, 2 for reasons of their own" in done.stdout
    assert "Snakemake agrees: it would run 7 jobs." in done.stdout
    first = findings(edited, TABLE)[0]
    assert (first["check"], first["rule"]) == ("B currency", "specification")


def test_explain_of_a_finished_table_has_nothing_to_say(finished):
    done = kd(finished, "explain", TABLE, "--workflow")
    assert "nothing would be made again" in done.stdout
    assert "Snakemake agrees: it would run 0 jobs." in done.stdout
