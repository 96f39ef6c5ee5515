"""From a table to its runs, and from a run to what each stage reads."""

from kd.experiment.expansion import all_runs, table_runs, table_scores
from kd.experiment.loading import load_experiment
from kd.experiment.stages import distill_spec, pretrain_spec, table_spec


def test_a_table_needs_every_combination_once(content, write):
    content["tables"] = {"table2": {}, "size": {"fractions": [50, 100], "rows": ["fraction"]}}
    experiment = load_experiment(write(content), {"seeds": 2})
    assert len(table_runs(experiment, "table2")) == 1 * 1 * 1 * 2 * 2
    assert len(table_runs(experiment, "size")) == 8
    assert len(all_runs(experiment)) == 8  # the 100 % runs are shared


def test_paths_tell_all_axes_apart(content, write):
    experiment = load_experiment(write(content), {"seeds": 2})
    paths = [run.path for run in all_runs(experiment)]
    assert len(set(paths)) == len(paths)
    assert "runs/squad/llama/opt/uld/f100/s1" in paths


def test_scores_include_teacher_and_native(content, write):
    scores = table_scores(load_experiment(write(content)), "table2")
    assert scores[0] == "teachers/llama/squad/eval/squad/scores.json"
    assert "native/squad/opt/eval/squad/scores.json" in scores
    assert len(scores) == len(set(scores)) == 4


def test_a_table_tests_where_it_says(content, write):
    """Runs are those of the training dataset; teacher and native student are the test one's own."""
    squad = content["datasets"]["squad"]
    content["datasets"] |= {"qed": squad, "apart": squad}
    content["tables"] = {"transfer": {"datasets": ["squad", "qed"], "tests": ["qed", "apart"]}}
    experiment = load_experiment(write(content))
    scores = table_scores(experiment, "transfer")
    assert "runs/squad/llama/opt/uld/f100/s0/eval/apart/scores.json" in scores
    assert "teachers/llama/apart/eval/apart/scores.json" in scores
    assert "native/apart/opt/eval/apart/scores.json" in scores
    assert len(table_runs(experiment, "transfer")) == 4 and len(scores) == 2 * 2 + 8
    spec = table_spec(experiment, "transfer")
    assert spec.columns == ["dataset", "teacher", "student", "test"]
    pairs = {(row["dataset"], row["test"]) for row in spec.rows}
    assert pairs == {(trained, test) for trained in ("squad", "qed") for test in ("qed", "apart")}
    assert spec.metrics == {"qed": "f1", "apart": "f1"}
    # A dataset that is only tested on is no text that models learn from.
    assert set(pretrain_spec(experiment, "opt").datasets) == {"squad", "qed"}


def test_a_table_of_curves_reads_no_scores(content, write):
    content["tables"]["table2"]["metrics"] = ["validation_rise", "generalisation_gap"]
    experiment = load_experiment(write(content))
    assert table_scores(experiment, "table2") == [
        "runs/squad/llama/opt/teacher_text/f100/s0/train.jsonl",
        "runs/squad/llama/opt/uld/f100/s0/train.jsonl",
    ]
    assert [row["metric"] for row in table_spec(experiment, "table2").rows] == [
        "validation_rise",
        "generalisation_gap",
    ]


def test_a_stage_does_not_see_keys_that_it_does_not_read(content, write):
    before = load_experiment(write(content))
    content["tables"]["table2"]["title"] = "Another title"
    content["students"]["opt"]["shots"] = 3
    content["generation"] = {"max_new_tokens": 5}
    content["methods"]["uld"]["weight"] = 9.0
    after = load_experiment(write(content))
    text_run, uld_run = all_runs(before)
    assert pretrain_spec(before, "opt") == pretrain_spec(after, "opt")
    assert distill_spec(before, text_run) == distill_spec(after, text_run)
    assert distill_spec(before, uld_run) != distill_spec(after, uld_run)
    assert table_spec(before, "table2") != table_spec(after, "table2")
