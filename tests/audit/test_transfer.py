"""Students that are tested on another dataset than the one they learned from."""

from types import SimpleNamespace

import pytest

from kd.audit import leakage
from kd.audit.checks.agreement import compare
from kd.data.rows import Row, write_rows
from kd.tables.cells import Line, score_columns
from kd.tables.published import Published


def rows(*questions: str) -> list[Row]:
    return [
        Row(id=f"r{number}", task="qa", context="Of old.", question=question, answers=["a"])
        for number, question in enumerate(questions)
    ]


@pytest.fixture
def scope(tmp_path):
    """Students of `home` are tested on `away`, too; those of `away` nowhere else."""
    questions = {
        ("home", "train"): ("learned at home",),
        ("home", "validation"): ("validated at home",),
        ("home", "test"): ("asked at home",),
        ("away", "train"): ("learned away",),
        ("away", "validation"): ("validated away",),
        ("away", "test"): ("asked away",),
    }
    for (dataset, split), asked in questions.items():
        path = tmp_path / "data" / dataset / f"{split}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_rows(rows(*asked), path)
    data = [SimpleNamespace(folder=f"data/{name}", spec={}) for name in ("away", "home")]
    run = SimpleNamespace(dataset="home")
    return SimpleNamespace(
        results=tmp_path,
        of_stage=lambda stage: data if stage == "data" else [],
        evaluations=[
            SimpleNamespace(dataset="home", run=run),
            SimpleNamespace(dataset="away", run=run),
            SimpleNamespace(dataset="away", run=None),
        ],
    )


def leaks(scope):
    voice = SimpleNamespace(
        scope=scope,
        about=lambda status, rule, artifact, *_, **__: (status, artifact.folder),
        passed=lambda rule, evidence: ("pass", rule),
    )
    return [one for one in leakage.leakage(voice) if one[0] == "fail"]


def ask(scope, dataset, split, *questions):
    write_rows(rows(*questions), scope.results / "data" / dataset / f"{split}.parquet")


def test_a_test_row_that_was_learned_in_another_dataset_is_found(scope):
    assert leaks(scope) == []
    ask(scope, "away", "test", "learned at home")
    assert leaks(scope) == [("fail", "data/away")]


def test_rows_of_datasets_that_no_tested_student_learned_from_are_no_leak(scope):
    ask(scope, "home", "test", "learned away")
    assert leaks(scope) == []


def test_text_of_pretraining_is_read_by_all(scope):
    ask(scope, "away", "pretraining", "asked at home")
    assert leaks(scope) == [("fail", "data/home")]


def test_validation_rows_are_compared_with_all_tests_of_their_students(scope):
    ask(scope, "away", "test", "validated at home")
    tested = leakage._tested_on(scope)
    data = scope.results / "data"
    assert tested == {"home": {"home", "away"}, "away": {"away"}}
    assert leakage._validation_in_test(data, "home", tested["home"]) == ["r0"]
    assert leakage._validation_in_test(data, "away", tested["away"]) == []


def test_published_figures_are_compared_with_tests_on_the_own_dataset_alone():
    def line(test):
        axes = {"dataset": "home", "teacher": "llama", "student": "opt", "fraction": 100}
        cell = SimpleNamespace(value=50.0, per_seed={"0": 50.0})
        return Line(axes | {"test": test}, "f1", dict.fromkeys(score_columns(spec), cell))

    spec = SimpleNamespace(baseline="teacher_text", methods=["teacher_text", "uld"])
    spec.one_method_a_line = False
    view = SimpleNamespace(spec=spec, lines=[line("home"), line("away")])
    theirs = {("home", "llama", "opt", 100, "uld", "f1"): Published(90.0, "their table")}
    found = {one.cell: one.verdict for one in compare(view, theirs, 1.0)}
    assert found["uld of home/llama/opt/home"] == "differs (direction kept)"
    assert found["uld of home/llama/opt/away"] == "no reference"
