"""Checklists: answered from manifests, and openly unanswered where they do not know."""

import pytest
from typer.testing import CliRunner

from kd.audit.target import table_target
from kd.cli import app
from kd.exports.checklist import NOT_ANSWERABLE, render_checklist
from kd.exports.checklist_items import ACL, CHECKLISTS, NEURIPS
from kd.exports.subject import open_subject
from tests.audit.fabrication import Plan, fabricate


@pytest.fixture(scope="module")
def scope(finished):
    return open_subject(table_target(finished.table))


def section(text: str, number: str) -> str:
    return text.partition(f"\n## {number}. ")[2].partition("\n## ")[0]


def test_seeds_and_spread_are_told(scope):
    text = section(render_checklist(NEURIPS, scope), "7")
    assert "seeds 0, 1, 2" in text
    assert "standard deviation" in text


def test_compute_is_the_sum_of_all_jobs(scope):
    text = section(render_checklist(NEURIPS, scope), "8")
    assert f"in {len(scope.artifacts)} jobs" in text


def test_splits_are_counted(scope):
    text = section(render_checklist(ACL, scope), "B6")
    assert "24 train" in text
    assert "12 test" in text


def test_hyperparameters_are_those_of_the_runs(scope):
    text = section(render_checklist(ACL, scope), "C2")
    assert "learning_rate 0.001" in text
    assert "weight=1.5" in text


@pytest.mark.parametrize("kind", sorted(CHECKLISTS))
def test_what_no_manifest_knows_is_said_to_be_unanswerable(scope, kind):
    checklist = CHECKLISTS[kind]
    text = render_checklist(checklist, scope)
    for item in checklist.items:
        assert (NOT_ANSWERABLE in section(text, item.number)) == (item.answer is None), item


def test_licences_are_not_invented(scope):
    assert NOT_ANSWERABLE in section(render_checklist(NEURIPS, scope), "12")
    assert NOT_ANSWERABLE in section(render_checklist(ACL, scope), "B2")


def test_one_seed_has_no_error_bars(tmp_path):
    world = fabricate(tmp_path / "world", Plan(seeds=(0,), experiment={"seeds": [0]}))
    alone = open_subject(table_target(world.table))
    assert NOT_ANSWERABLE in section(render_checklist(NEURIPS, alone), "7")


def test_an_unknown_kind_is_refused(at_home):
    runner = CliRunner()
    done = runner.invoke(app, ["export", "checklist", "results/table2.csv", "--kind", "nips"])
    assert "Did you mean 'neurips'?" in str(done.exception)
