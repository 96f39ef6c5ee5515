"""`kd audit published` on the terminal, and the walk of docs/audit-published.md."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from kd import cli
from kd.audit.findings import Finding, Report
from kd.audit.summary import MAX_LINES, print_summary
from tests.audit.published_archive import ULD, answers, publish, sound_archive

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs/audit-published.md").read_text(encoding="utf-8")


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    return sound_archive(tmp_path / "published")


@pytest.fixture
def kd(monkeypatch, capsys):
    """Run a command; returns its exit status, standard output and standard error."""

    def run(*words: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["kd", *map(str, words)])
        with pytest.raises(SystemExit) as stopped:
            cli.main()
        captured = capsys.readouterr()
        return int(stopped.value.code or 0), captured.out, captured.err

    return run


def test_a_sound_archive_exits_with_0_in_at_most_15_lines(archive, kd):
    status, out, err = kd("audit", "published", archive)
    assert (status, err) == (0, "")
    assert 3 < len(out.splitlines()) <= MAX_LINES
    assert "3 agree with their predictions, 0 differ" in out


def test_a_failure_exits_with_1_and_stands_first(archive, kd):
    publish(archive, ULD, answers(60, 4, offset=1), f1=1.5, squad=None)
    status, out, _ = kd("audit", "published", archive)
    assert status == 1
    assert len(out.splitlines()) <= MAX_LINES
    worst = out.splitlines()[2]
    assert worst.startswith("✗ readable")
    assert worst.endswith(".")  # in a pipe the evidence is whole


def test_a_warning_fails_only_when_strict(archive, kd):
    publish(archive, ULD, answers(60, 4, offset=1), samples_number=None)
    assert kd("audit", "published", archive)[0] == 0
    assert kd("audit", "published", archive, "--strict")[0] == 1


@pytest.mark.parametrize("words", [["missing"], [".", "--protocol", "none"], ["."], ["--bogus"]])
def test_wrong_usage_exits_with_2_in_one_sentence(tmp_path, monkeypatch, kd, words):
    monkeypatch.chdir(tmp_path)
    status, out, err = kd("audit", "published", *words)
    assert (status, out) == (2, "")
    assert words == ["--bogus"] or len(err.splitlines()) == 1


def test_json_is_all_that_is_printed(archive, kd):
    status, out, err = kd("audit", "published", archive, "--json")
    assert (status, err) == (0, "")
    report = Report.model_validate(json.loads(out))
    assert report.subject == "published" and report.schema_version == 1
    documented = set(re.findall(r"^\| `\.(\w+)`", PAGE, re.MULTILINE))
    documented |= {"rule", "derived_from"}
    assert documented == set(Finding.model_fields)


def test_one_file_is_shown_metric_by_metric(archive, kd):
    status, out, _ = kd("audit", "published", archive, "--only", ULD)
    assert status == 0
    assert re.search(r"f1 .* exact .* True", out) and "f1_bert" in out
    assert "teach-7b/d0" not in out
    status, out, err = kd("audit", "published", archive, "--only", f"{ULD}/1shots.json")
    assert status == 2 and "Did you mean" in err and len(err.splitlines()) == 1


def test_all_findings_can_be_listed(archive, kd):
    publish(archive, ULD, answers(60, 4, offset=1), f1=1.5)
    status, out, _ = kd("audit", "published", archive, "--all")
    assert status == 1
    assert out.count("✓ identity") == 3
    assert f"    $ kd audit published . --protocol uld --only {ULD}/0shots.json\n" in out


def test_a_summary_of_many_checks_keeps_its_size(capsys):
    findings = tuple(
        Finding(check=f"check {n}", subject="it", status="warn", evidence="long " * 90)
        for n in range(40)
    )
    print_summary(Report(audit="a", subject="b", summary="c", findings=findings), "more")
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == MAX_LINES
    assert lines[-2:] == ["  and 29 checks with nothing worse", "more"]


def test_the_checks_are_all_described():
    from kd.audit.published.report import CHECKS

    assert tuple(re.findall(r"^\| `([a-z ]+)` \| [FW]", PAGE, re.MULTILINE)) == CHECKS


@pytest.fixture(scope="module")
def copy(tmp_path_factory) -> Path:
    """A copy of the package with the page's protocol in its place, and a folder in its layout."""
    folder = tmp_path_factory.mktemp("walk")
    shutil.copytree(ROOT / "kd", folder / "kd", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", folder)
    ((module, source),) = re.findall(r"Create\n`(.*?)`:\n\n```python\n(.*?)```", PAGE, re.DOTALL)
    (folder / module).write_text(source, encoding="utf-8")
    results = folder / "results/letters"
    results.mkdir(parents=True)
    for method, right in (("plain", 30), ("fancy", 39)):
        lines = [{"said": "ab"[row >= right], "label": "a"} for row in range(40)]
        (results / f"{method}.jsonl").write_text("\n".join(map(json.dumps, lines)))
        (results / f"{method}.json").write_text(json.dumps({"accuracy": 100 * right / 40}))
    return folder


def in_copy(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": str(folder)}
    return subprocess.run(
        [sys.executable, "-m", *words],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_protocol_is_one_file(copy):
    done = in_copy(
        copy, "kd.cli", "audit", "published", "results", "--protocol", "labels", "--json"
    )
    assert done.returncode == 0, done.stderr
    findings = json.loads(done.stdout)["findings"]
    (gain,) = [f for f in findings if f["check"] == "significance"]
    assert gain["subject"] == "letters: teacher to student, fancy against plain"
    assert "accuracy +22.50" in gain["evidence"] and gain["status"] == "pass"
    assert [f["status"] for f in findings if f["check"] == "scores"] == ["pass", "pass"]


def test_its_findings_name_it_and_its_malformed_files_are_findings(copy):
    (copy / "results/letters/fancy.json").write_text('{"accuracy": 12.5}')
    (copy / "results/letters/plain.jsonl").write_text('{"said": 1}')
    done = in_copy(copy, "kd.cli", "audit", "published", "results", "--protocol", "labels", "--all")
    assert done.returncode == 1, done.stderr
    assert "accuracy is 12.50, but its predictions give 97.50" in done.stdout
    assert "line 1: 'said' or 'label' is missing or no text" in done.stdout
    assert "--protocol labels --only letters/fancy.json" in done.stdout


def test_the_page_passes_the_lint(copy):
    done = in_copy(copy, "ruff", "check", "kd/audit/published/protocols")
    assert done.returncode == 0, done.stdout


def test_a_module_without_a_protocol_is_refused_with_what_to_add(copy):
    (copy / "kd/audit/published/protocols/half.py").write_text("", encoding="utf-8")
    done = in_copy(copy, "kd.cli", "audit", "published", "results", "--protocol", "half")
    assert done.returncode == 2
    assert "binds no PROTOCOL. Add `PROTOCOL = " in done.stderr
