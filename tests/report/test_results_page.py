"""The results page: claims in words, and the digests that tell when it is stale."""

import json
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import yaml

from kd.errors import ArtifactError
from kd.experiment.loading import find_experiment, load_experiment
from kd.report.origin import read_origin
from kd.report.results_page import check_results, render_claims, render_results
from tests.report.conftest import STATED, rewrite

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def page(made, tmp_path):
    file = tmp_path / "results.md"
    file.write_text(render_results(load_experiment(made.file), made.results), encoding="utf-8")
    return file


def changed(made, page, **overrides):
    return check_results(page, lambda name: load_experiment(made.file, overrides))


def test_it_tells_claims_with_verdict_and_interval(made, page):
    text = page.read_text(encoding="utf-8")
    claim = "- **Undecided:** Students learn more from ULD. +25.00 points [-1.50, +51.50]"
    assert claim in text and claim in render_claims(load_experiment(made.file), made.results)
    assert "Mean gain of uld over teacher text: +25.00 points; better in 1 of 1 line." in text
    assert "| 75.00 ± 2.00 | +25.00 [+24.00, +26.00] * |" in text
    assert "kd results tiny --markdown > docs/results.md" in text


def test_a_page_is_current_until_experiment_or_code_change(made, page):
    assert changed(made, page) == []
    assert changed(made, page, description="other", deviations=["other"], seeds=[0]) == []
    assert changed(made, page, training={"epochs": 3}) == ["experiment 'tiny'"]
    origin = read_origin(page.read_text(encoding="utf-8"))
    assert set(origin.code) >= {"data", "pretrain", "distill none", "distill uld", "table"}
    old = origin.code["distill uld"]
    page.write_text(page.read_text(encoding="utf-8").replace(old, "0" * 64), encoding="utf-8")
    assert changed(made, page) == ["code of stage 'distill' with loss 'uld'"]


def declared(made, **claims):
    return load_experiment(made.file, {"claims": claims})


def test_claims_without_a_verdict_are_counted_and_listed(made):
    """One is about a table that was not made, one was edited after its table was."""
    found = declared(made, better=STATED | {"margin": 5.0})
    text = render_results(found, made.results)
    assert "Of 1 claim 1 was not run." in text and "Undecided" not in text
    assert "- **Not run:** Students learn more from ULD. (written or edited after table" in text
    assert "1 was not run" in render_claims(found, made.results)


def test_claims_of_tables_that_were_not_made_are_not_run(world):
    for file in world.table.parent.glob("table2*"):
        file.rename(file.with_name(file.name.replace("table2", "other")))
    content = json.loads((world.table.parent / "other.json").read_text()) | {"claims": []}
    stated = yaml.safe_load(world.file.read_text())
    stated["tables"]["other"] = stated["tables"]["table2"] or {}
    world.file.write_text(yaml.safe_dump(stated))
    rewrite(world.table.parent / "other.json", content)
    text = render_claims(load_experiment(world.file), world.results)
    assert "Of 1 claim 1 was not run." in text
    assert "(table table2 was not made; table 2)" in text


def test_results_of_an_edited_experiment_are_stale_from_the_start(made, page):
    edited = load_experiment(made.file, {"training": {"epochs": 3}})
    text = render_results(edited, made.results)
    assert "**Stale:** table2: stage 'distill'" in text
    page.write_text(text, encoding="utf-8")
    assert check_results(page, lambda _: edited) == ["experiment 'tiny'"]


@pytest.mark.parametrize(
    "text",
    [
        b"\xff\xfe\x00garbage",
        b"<!-- made from {broken} -->",
        b'<!-- made from {"name": 1} -->',
        b'<!-- made from {"name": "x", "experiment": "", "code": [], "tables": {}} -->',
    ],
)
def test_garbage_is_no_results_page(made, tmp_path, text):
    file = tmp_path / "x.md"
    file.write_bytes(text)
    with pytest.raises(ArtifactError, match=r"carries no digests|no text"):
        changed(made, file)


def test_what_is_no_results_page_is_refused(made, tmp_path):
    file = tmp_path / "x.md"
    with pytest.raises(ArtifactError, match="no such file"):
        changed(made, file)
    file.write_text("# Results")
    with pytest.raises(ArtifactError, match="carries no digests"):
        changed(made, file)


def test_no_results_no_page(made, tmp_path):
    with pytest.raises(ArtifactError, match="no table to write about"):
        render_results(load_experiment(made.file), tmp_path)


def test_the_published_page_says_when_it_is_stale():
    """A warning, no failure: results are made again when there is time for it."""
    page = ROOT / "docs" / "results.md"
    found = check_results(page, lambda name: load_experiment(find_experiment(name)))
    done = subprocess.run(
        [sys.executable, "-m", "kd.cli", "results", "--check", str(page)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert ("stale, since" if found else "current.") in done.stdout
    if found:
        warnings.warn(f"docs/results.md is stale: {', '.join(found)} changed", stacklevel=1)
