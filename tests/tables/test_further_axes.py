"""Tables over test datasets and several metrics: what is read, and what has an interval."""

import csv
import json
import re

import numpy as np
import pytest

from kd.experiment.base import Strict
from kd.experiment.claims import Claim, NamedClaim
from kd.experiment.layout import Run, native_path, scores_path, teacher_path
from kd.experiment.stages import TableSpec
from kd.provenance.manifest import StageRecord
from kd.tables.assembly import write_table
from kd.tables.claims import _joined, evaluate_claims
from kd.tables.scores import ScoreReader

EXAMPLES = {"a": 12, "b": 8}
PLACE = {"dataset": "a", "teacher": "llama", "student": "opt", "fraction": 100}
SPEC = TableSpec(
    experiment="e",
    name="t",
    title="",
    columns=["dataset", "teacher", "student"],
    rows=[],
    methods=["teacher_text", "uld"],
    baseline="teacher_text",
    metrics={"a": "f1", "b": "f1"},
    seeds=[0, 1],
    published=None,
)
TESTS = SPEC.model_copy(
    update={
        "columns": ["dataset", "test", "teacher", "student"],
        "rows": [PLACE | {"test": "a"}, PLACE | {"test": "b"}],
    }
)
METRICS = SPEC.model_copy(
    update={"rows": [PLACE | {"metric": name} for name in ("f1", "ece", "validation_rise")]}
)


class Empty(Strict):
    pass


def write_scores(results, subject, test, value, more=0.0):
    path = results / scores_path(subject, test)
    path.parent.mkdir(parents=True)
    spread = np.linspace(-5, 5, EXAMPLES[test])
    scores = {
        "metrics": {"f1": {"mean": value, "sd": 1.0}, "ece": {"mean": value / 10 + more}},
        "ids": [f"{test}{number}" for number in range(EXAMPLES[test])],
        "per_example": {"f1": (value + spread).tolist()},
    }
    record = StageRecord("score", Empty(), {}, ("kd.evaluation.score",))
    path.write_text(json.dumps(scores))
    record.write(path)


@pytest.fixture
def results(tmp_path):
    """ULD gains 4 points on `a` and 1 on `b`; its validation loss rises by 0.5, or 0.501."""
    for test in EXAMPLES:
        write_scores(tmp_path, teacher_path("llama", test), test, 80.0)
        write_scores(tmp_path, native_path(test, "opt"), test, 20.0)
    for method, gain in (("teacher_text", 0), ("uld", 1)):
        for seed in SPEC.seeds:
            run = Run("a", "llama", "opt", method, 100, seed)
            write_scores(tmp_path, run.path, "a", 50.0 + 4 * gain, gain * seed / 1000)
            write_scores(tmp_path, run.path, "b", 30.0 + gain)
            curve = tmp_path / run.path / "train.jsonl"
            losses = [1.0, 1.0 + gain * (0.5 + seed / 1000)]
            lines = [json.dumps({"step": 1, "validation_cross_entropy": loss}) for loss in losses]
            curve.write_text("\n".join(lines))
            notes = {"steps": 3, "seconds_per_step": 0.5, "cpu_seconds_per_step": 0.25}
            record = StageRecord("distill", Empty(), {}, ("kd.training.code",))
            record.write(curve, notes=notes)
    return tmp_path


def written(spec, results):
    write_table(spec, results, results / "tables")
    with (results / "tables/t.csv").open() as file:
        return list(csv.DictReader(file))


def test_a_run_is_shown_on_every_dataset_that_it_is_tested_on(results):
    at_home, abroad = written(TESTS, results)
    assert (at_home["dataset"], at_home["test"], at_home["gain_uld"]) == ("a", "a", "4.0")
    assert (abroad["dataset"], abroad["test"], abroad["gain_uld"]) == ("a", "b", "1.0")
    assert abroad["teacher_score"] == "80.0" and abroad["native"] == "20.0"
    row = json.loads((results / "tables/t.json").read_text())["rows"][1]
    assert row["test"] == "b"
    assert all("/eval/b/" in path for path in row["cells"]["uld"]["scores"])


def test_curves_and_calibration_errors_have_intervals_over_seeds_alone(results):
    f1, ece, rise = written(METRICS, results)
    assert f1["gain_uld_lo"] and ece["gain_uld_lo"] and rise["gain_uld_lo"]
    lines = json.loads((results / "tables/t.json").read_text())["rows"]
    covers = [line["cells"]["gain_uld"]["over"] for line in lines]
    assert covers == ["examples and seeds", "seeds", "seeds"]
    assert "No example has ece and validation_rise of its own: their intervals are over seeds " in (
        (results / "tables/t.md").read_text()
    )
    one, two = written(METRICS.model_copy(update={"seeds": [0]}), results)[1:]
    assert not one["gain_uld_lo"] and not two["gain_uld_lo"]
    text = (results / "tables/t.md").read_text()
    assert "at one seed they have no interval" in text


def test_of_errors_and_losses_less_is_better(results):
    """ULD's calibration error is 0.4 points larger, its validation loss rises by 0.5 nats."""
    f1, ece, rise = written(METRICS, results)
    assert float(f1["gain_uld"]) == 4.0
    assert float(ece["gain_uld"]) == pytest.approx(-0.4, abs=1e-3)
    assert float(rise["gain_uld"]) == pytest.approx(-0.5, abs=1e-3)
    assert float(rise["uld"]) == pytest.approx(0.5005)
    assert (rise["teacher_text"], rise["native"]) == ("0.0", "")
    text = (results / "tables/t.md").read_text()
    assert "only a distilled student has a training curve" in text
    assert "Of ece and validation_rise less is better: a gain is a decrease." in text
    assert "points (f1 and ece), nats a token (validation_rise) over teacher_text" in text
    assert re.search(r"-0\.50\d \[", text) and "+4.00 [" in text, "nats have three decimals"
    assert "on average" not in text, "different metrics have no mean"


def test_a_claim_over_several_test_datasets_weighs_them_alike(results):
    claim = Claim(text="x", table="t", left={"method": "uld"}, right={"method": "teacher_text"})
    found = evaluate_claims({"c": claim}, TESTS, ScoreReader(TESTS, results).sample, 499)["c"]
    assert found.value == pytest.approx(2.5) and found.outcome == "holds"


def claim_about(metric):
    sides = {"left": {"method": "uld"}, "right": {"method": "teacher_text"}}
    return NamedClaim(name="c", text="x", table="t", where={"metric": metric}, **sides)


@pytest.mark.parametrize(
    ("metric", "unit"), [("ece", "points"), ("validation_rise", "nats a token")]
)
def test_a_claim_means_better_by_metrics_of_which_less_is_better(results, metric, unit):
    spec = METRICS.model_copy(update={"claims": [claim_about(metric)]})
    written(spec, results)
    found = json.loads((results / "tables/t.json").read_text())["claims"][0]
    assert found["value"] < 0 and found["over"] == "seeds" and found["outcome"] == "does not hold"
    assert unit in found["sentence"] and f"Of {metric} less is better." in found["sentence"]


def test_values_of_whole_datasets_are_summed_by_seed():
    blocks = [np.array([[1.0], [2.0]]), np.array([[3.0], [5.0]])]
    assert _joined(blocks).tolist() == [[4.0], [7.0]]


def test_blocks_that_share_their_seeds_keep_the_sum_of_their_means():
    blocks = [np.array([[1.0, 3.0]]), np.array([[6.0]])]
    assert _joined(blocks).mean() == pytest.approx(2.0 + 6.0)
