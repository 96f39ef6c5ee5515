"""A clean tree gives no failure, and auditing it changes nothing."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from kd.audit.checks import currency
from kd.audit.notes import CURRENCY
from kd.audit.page import render_page
from kd.audit.places import STAGES
from kd.audit.results import audit_results
from kd.audit.scope import Settings
from kd.audit.summary import print_summary
from kd.audit.target import Target, guess_target, run_target, table_target
from kd.commands import stages as commands
from kd.provenance.canonical import file_digest
from tests.audit.fabrication import ROOT, Plan, World, fabricate
from tests.audit.mutations import audit, audit_whole
from tests.audit.small_files import DATASET
from tests.audit.tampering import change_experiment, edit_context, replace_text

# This environment's own state, which no result can help.
OF_THE_ENVIRONMENT = {"installed versions", "recorded versions"}


def problems(report) -> list[str]:
    """Failures and warnings, those of the environment aside."""
    return [
        f"{one.check}, {one.rule}: {one.evidence}"
        for one in report.findings
        if one.status in ("fail", "warn") and one.rule not in OF_THE_ENVIRONMENT
    ]


def settings(world: World) -> Settings:
    return Settings(experiment=str(world.file), checkout=world.root)


def digests(folder: Path) -> dict[str, str]:
    return {str(path): file_digest(path) for path in folder.rglob("*") if path.is_file()}


def test_a_clean_table_gives_no_failure_and_no_warning(clean):
    assert problems(audit(clean)) == []


def test_a_clean_experiment_gives_none_either(clean):
    assert problems(audit_whole(clean)) == []


@pytest.mark.parametrize(
    "folder",
    [
        "runs/squad/llama/opt/uld/f100/s1",
        "native/squad/opt",
        "teachers/llama/squad",
        "models/opt",
        "data/squad",
        "runs/squad/llama/opt/uld/f100/s1/eval/squad",
    ],
)
def test_any_part_of_it_gives_none_either(clean, folder):
    report, scope = audit_results(run_target(clean.results / folder), settings(clean))
    assert problems(report) == []
    assert {artifact.stage for artifact in scope.artifacts} >= {"data"}


def test_every_cell_is_said_to_hold(clean):
    cells = audit(clean).cells
    assert {cell["column"] for cell in cells} == {
        "teacher_score",
        "native",
        "teacher_text",
        "uld",
        "gain_uld",
    }
    assert all(cell["holds"] for cell in cells)


def test_one_cell_walks_its_own_chain_alone(clean):
    chosen = {"method": "uld", "seed": "1"}
    target = Target("table", clean.results, "table2", None, chosen)
    report, scope = audit_results(target, settings(clean))
    assert problems(report) == []
    (run,) = {artifact.folder for artifact in scope.of_stage("distill")}
    assert run.endswith("uld/f100/s1")


def test_nothing_is_written(clean):
    before = digests(clean.root)
    audit_whole(clean)
    assert digests(clean.root) == before


def test_results_may_be_moved_anywhere(clean, tmp_path):
    shutil.copytree(clean.root, tmp_path / "elsewhere")
    moved = World(tmp_path / "elsewhere")
    assert problems(audit(moved)) == []


def test_figures_of_another_kind_of_machine_are_compared_with_tolerance(spoilt):
    replace_text("README.md", "x86_64/AVX512", "aarch64/DEFAULT")(spoilt)
    replace_text("README.md", "| 100.0 |", "| 97.0 |")(spoilt)
    assert problems(audit(spoilt)) == []
    replace_text("README.md", "| 97.0 |", "| 90.0 |")(spoilt)
    (problem,) = problems(audit(spoilt))
    assert "1 figure of 4 not as within 5 points, on another machine" in problem
    assert audit(spoilt).exit_code() == 0


def test_code_that_is_not_here_any_more_is_not_said_to_be_the_same(clean, monkeypatch):
    known = currency.code_now
    monkeypatch.setattr(
        currency, "code_now", lambda one: None if one.stage == "distill" else known(one)
    )
    report, scope = audit_results(
        table_target(clean.results / "tables" / "table2.csv"), settings(clean)
    )
    said = {
        one.status: one.evidence
        for one in report.findings
        if (one.check, one.rule) == (CURRENCY, "code")
    }
    others = sum(one.stage != "distill" for one in scope.artifacts)
    assert "is not here any more" in said["warn"]
    assert said["pass"].startswith(f"{others} artifacts made by the code of today")


def test_a_damaged_chart_is_made_again_under_its_own_name(spoilt):
    (spoilt.results / "tables" / "table2.svg").write_text("<svg/>")
    (found,) = (one for one in audit(spoilt).findings if one.subject == "tables/table2.chart")
    assert found.next_command == "snakemake --force results/tiny/tables/table2.svg"


def test_a_run_that_is_declared_no_more_is_said_to_be(spoilt):
    change_experiment(methods={"teacher_text": {"loss": "none"}}, claims={})(spoilt)
    report, _ = audit_results(
        run_target(spoilt.results / "runs/squad/llama/opt/uld/f100/s1"), settings(spoilt)
    )
    assert any("declares nothing like it any more" in problem for problem in problems(report))


def test_what_is_not_there_is_not_applicable(clean):
    shown = {(one.rule, one.status) for one in audit(clean).findings}
    for rule in ("container", "workflow", "revisions", "repeat", "expected identity"):
        assert (rule, "not applicable") in shown


def test_pinned_revisions_pass(tmp_path):
    from tests.audit.malpractice import from_hub

    world = fabricate(tmp_path / "world", from_hub("0123456789abcdef0123456789abcdef01234567"))
    assert problems(audit(world)) == []


def test_more_seeds_pass_when_they_are_named(tmp_path):
    world = fabricate(tmp_path / "world", Plan(seeds=(0, 1, 2, 3)))
    assert problems(audit(world)) != []
    assert problems(audit(world, overrides={"seeds": 4})) == []


def test_the_chain_has_every_stage_that_a_command_makes(clean):
    """A new stage must join the chain that is made by hand, or its faults go unseen.

    Fetched models are audited in a chain of their own (tests/workflow/test_hub.py).
    """
    named = {command.callback.__name__ for command in commands.app.registered_commands}
    made = {
        json.loads(p.read_text())["hashed"]["stage"] for p in clean.results.rglob("*.manifest.json")
    }
    assert made | {"fetch"} == set(STAGES) == (named - {"track"}) | {"chart"}


def test_an_audit_needs_no_torch(clean):
    code = (
        "import sys; from kd.cli import app\n"
        f"sys.argv = ['kd', 'audit', {str(clean.table)!r}, '--experiment', {str(clean.file)!r}]\n"
        "try: app()\n"
        "except SystemExit as stop: print('status', stop.code)\n"
        "print(sorted({'torch', 'transformers', 'mlflow', 'datasets'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert done.stdout.splitlines()[-2:] == ["status 0", "[]"], done.stdout


def test_the_summary_fits_into_fifteen_lines(clean, capsys):
    print_summary(audit(clean), "more")
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) <= 15
    assert lines[0].startswith("audit table table2 of tiny: ")
    assert lines[1].startswith("5 of 5 cells hold; 29 artifacts back to the rows; identity ")


def test_the_same_tree_gives_the_same_report(clean):
    assert audit(clean).to_json() == audit(clean).to_json()


def test_the_page_stands_alone_and_every_cell_opens_its_chain(clean):
    target = table_target(clean.root / "results" / "table2.csv")
    page = render_page(*audit_results(target, settings(clean)))
    assert "<script" not in page and "http" not in page and "src=" not in page
    assert str(clean.root) not in page
    assert page.count("<details class='cell'>") == 5
    assert "published 100.25: " in page and " (3)</summary>" in page
    cell = page.partition("<details class='cell'>")[2].partition("</details>")[0]
    for stage in ("score", "predict", "data"):
        assert f">{stage}: " in cell
    targets = {part.partition("'")[0] for part in page.split("href='#")[1:]}
    assert all(f"id='{anchor}'" in page for anchor in targets)


def test_the_report_as_json_has_the_documented_keys(clean):
    report = json.loads(audit(clean).to_json())
    documented = (ROOT / "docs" / "audit.md").read_text(encoding="utf-8")
    for key in report:
        assert f"`{key}`" in documented
    finding, cell = report["findings"][0], report["cells"][0]
    (artifact,) = [one for key, one in report["artifacts"].items() if key == "tables/table2"]
    for key in (*finding, *cell, *artifact):
        assert f"`{key}`" in documented, key
    assert str(clean.root) not in json.dumps(report["findings"])


@pytest.mark.parametrize("name", ["table", "copy", "run", "file", "folder"])
def test_a_path_is_told_what_it_is(clean, name):
    path, kind = {
        "table": (clean.table, "table"),
        "copy": (clean.root / "results" / "table2.csv", "table"),
        "run": (clean.run(), "run"),
        "file": (clean.run() / "train.jsonl", "run"),
        "folder": (clean.results, "experiment"),
    }[name]
    found = guess_target(str(path))
    assert (found.kind, found.results.resolve()) == (kind, clean.results.resolve())
    assert DATASET in found.name or found.name in ("table2", "tiny")


def test_a_fetched_model_is_a_part_of_an_experiment(tmp_path):
    folder = tmp_path / "paper" / "hub" / "opt"
    folder.mkdir(parents=True)
    (folder / "model.manifest.json").write_text("{}")
    assert run_target(folder) == Target("run", tmp_path / "paper", "hub/opt")


def test_a_table_whose_published_figures_are_not_here_is_not_made_again(spoilt):
    paths = {"published": "/elsewhere/published/theirs.csv"}
    edit_context("tables/table2", paths=paths)(spoilt)
    (found,) = (one for one in audit(spoilt).findings if one.rule == "table made again")
    assert found.status == "not applicable"
    assert "(theirs.csv) are not here" in found.evidence
