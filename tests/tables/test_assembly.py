"""Tables: gains, missing metrics, published columns, and provenance that leads to scores."""

import csv
import io
import json
import re

import pytest

from kd.errors import ArtifactError
from kd.experiment.base import Strict
from kd.experiment.layout import Run, native_path, scores_path, teacher_path
from kd.experiment.stages import TableSpec
from kd.provenance.manifest import StageRecord, read_manifest
from kd.tables.assembly import write_table


class Empty(Strict):
    pass


SPEC = TableSpec(
    experiment="e",
    name="t",
    title="Title",
    columns=["dataset", "teacher", "student"],
    rows=[
        {"dataset": d, "teacher": "llama", "student": "opt", "fraction": 100} for d in ("a", "b")
    ],
    methods=["teacher_text", "uld"],
    baseline="teacher_text",
    metrics={"a": "f1", "b": "bertscore"},
    seeds=[0, 1],
    published=None,
)


def write_scores(results, subject, dataset, value):
    path = results / scores_path(subject, dataset)
    path.parent.mkdir(parents=True)
    record = StageRecord("score", Empty(), {}, ("kd.evaluation.score",))
    examples = [value - 10.0, value, value + 10.0]
    scores = {
        "metrics": {"f1": {"mean": value}, "bertscore": {"unavailable": "no encoder"}},
        "ids": ["x", "y", "z"],
        "per_example": {"f1": examples},
    }
    path.write_text(json.dumps(scores))
    record.write(path)


@pytest.fixture
def results(tmp_path):
    values = {"teacher_text": (40.0, 50.0), "uld": (44.5, 50.5)}
    for dataset in ("a", "b"):
        write_scores(tmp_path, teacher_path("llama", dataset), dataset, 80.25)
        write_scores(tmp_path, native_path(dataset, "opt"), dataset, 20.0)
        for method, seeds in values.items():
            for seed, value in enumerate(seeds):
                run = Run(dataset, "llama", "opt", method, 100, seed)
                write_scores(tmp_path, run.path, dataset, value)
                write_run(tmp_path, run)
    return tmp_path


def write_run(results, run):
    """The manifest of a distillation that took 3 steps of half a second."""
    curve = results / run.path / "train.jsonl"
    curve.write_text("{}")
    record = StageRecord("distill", Empty(), {}, ("kd.training.code",))
    record.write(curve, notes={"steps": 3, "seconds_per_step": 0.5, "cpu_seconds_per_step": 0.25})


def read_csv(path):
    return list(csv.DictReader(io.StringIO(path.read_text())))


def test_cells_are_means_over_seeds_and_gains_their_difference(results):
    write_table(SPEC, results, results / "tables")
    first, second = read_csv(results / "tables/t.csv")
    assert first["teacher_score"] == "80.25" and first["native"] == "20.0"
    assert float(first["teacher_text"]) == 45.0
    assert float(first["uld"]) == 47.5
    assert float(first["gain_uld"]) == 2.5
    assert second["uld"] == second["gain_uld"] == ""


def test_an_unavailable_metric_says_so_instead_of_failing(results):
    write_table(SPEC, results, results / "tables")
    text = (results / "tables/t.md").read_text()
    assert "n/a: no encoder" in text and "There are no intervals" in text
    assert "| +2.50 " in text
    assert re.search(r"uld against teacher_text: \+2\.50 points on average", text)
    assert "better in 1 of 1 line." in text


def test_every_cell_names_its_scores_by_identity(results):
    write_table(SPEC, results, results / "tables")
    table = json.loads((results / "tables/t.json").read_text())
    cell = table["rows"][0]["cells"]["gain_uld"]
    assert len(cell["scores"]) == 4
    for path, identity in cell["scores"].items():
        manifest = read_manifest((results / path).with_name("score.manifest.json"))
        assert manifest["identity"] == identity
    assert table["rows"][0]["cells"]["uld"]["per_seed"] == {"0": 44.5, "1": 50.5}


def test_published_scores_stand_beside_ours(results, tmp_path):
    published = tmp_path / "uld.csv"
    published.write_text(
        "dataset,teacher,student,fraction,column,metric,value,source,note\n"
        "a,llama,opt,100,uld,f1,72.97,file,\n"
        "a,llama,opt,50,uld,f1,1.00,file,another share\n"
    )
    write_table(SPEC, results, results / "tables", published)
    first, second = read_csv(results / "tables/t.csv")
    assert first["published_uld"] == "72.97" and second["published_uld"] == ""
    assert "published_native" not in first


def test_scores_that_changed_after_scoring_are_refused(results):
    run = Run("a", "llama", "opt", "uld", 100, 0)
    path = results / scores_path(run.path, "a")
    path.write_text(path.read_text().replace('{"mean": 44.5', '{"mean": 94.5'))
    with pytest.raises(ArtifactError, match="changed since stage 'score' wrote it"):
        write_table(SPEC, results, results / "tables")


def test_a_missing_metric_is_refused(results):
    spec = SPEC.model_copy(update={"metrics": {"a": "rouge1", "b": "f1"}})
    with pytest.raises(ArtifactError, match="no score 'rouge1' to read"):
        write_table(spec, results, results / "tables")


def test_a_table_may_have_one_line_a_method(results):
    lines = [line | {"method": "uld"} for line in SPEC.rows]
    columns = [*SPEC.columns, "method"]
    spec = SPEC.model_copy(update={"columns": columns, "rows": lines})
    write_table(spec, results, results / "tables")
    first, second = read_csv(results / "tables/t.csv")
    assert first["method"] == "uld" and "uld" not in first
    assert [float(first[key]) for key in ("teacher_text", "score", "gain")] == [45.0, 47.5, 2.5]
    assert second["score"] == ""


def test_costs_lie_beside_the_table_and_are_not_hashed(results):
    write_table(SPEC, results, results / "tables")
    costs = read_csv(results / "tables/t.cost.csv")
    assert [(cost["method"], cost["seed"]) for cost in costs[:3]] == [
        ("teacher_text", "0"),
        ("teacher_text", "1"),
        ("uld", "0"),
    ]
    assert costs[0]["cpu_seconds_per_step"] == "0.25"
    assert costs[0]["seconds_per_step"] == "0.5" and int(costs[0]["peak_memory_mib"]) > 10
    outputs = read_manifest(results / "tables/t.manifest.json")["hashed"]["outputs"]
    assert sorted(outputs) == ["t.csv", "t.json", "t.long.csv", "t.md", "t.tex"]
