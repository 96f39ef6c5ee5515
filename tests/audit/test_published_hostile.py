"""Archives are other people's files: malformed or malicious ones end as findings, not crashes."""

import json
import os
import shlex
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from kd.audit.findings import Report
from kd.audit.published import archive as archive_module
from kd.audit.published.report import audit_published
from tests.audit.published_archive import ULD, answers, found, publish, scores, sound_archive

SCORES, PREDICTIONS = f"{ULD}/0shots.json", f"{ULD}/predictions_0shots.json"
ORPHAN = "pupil-1m/zoo/teach-7b/d0/7/predictions_0shots.json"
GOOD_LINE = json.dumps({"answers": "fox", "prediction_text": "fox"})


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    return sound_archive(tmp_path / "published")


def audit(root: Path) -> Report:
    report = audit_published(root, "uld")
    assert json.loads(report.to_json())["findings"]
    return report


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b'{"f1": 12.', "is no JSON"),
        (b"", "is no JSON"),
        (b"[1, 2]", "holds no JSON object"),
        (b'{"f1": 1, "f1": 2}', "has 'f1' twice"),
        (b'{"f1": "\xff"}', "byte 8 is not UTF-8"),
        (b"[" * 200_000, "is nested too deeply"),
        (b'{"f1": ' + b"9" * 5000 + b"}", "is no usable JSON"),
    ],
)
def test_a_score_file_that_cannot_be_read_is_one_finding(archive, content, told):
    (archive / SCORES).write_bytes(content)
    report = audit(archive)
    (finding,) = [f for f in report.findings if SCORES in f.subject]
    assert (finding.check, finding.status) == ("readable", "fail")
    assert told in finding.evidence
    assert len(found(report, "scores")) == 2


@pytest.mark.parametrize("value", ["NaN", "-Infinity", "1e999", '"12"', "true", "null", "9" * 400])
def test_a_value_that_is_no_number_is_named_and_the_others_are_still_audited(archive, value):
    content = json.loads((archive / SCORES).read_text())
    text = json.dumps(content | {"f1": 0.5}).replace('"f1": 0.5', f'"f1": {value}')
    (archive / SCORES).write_text(text)
    report = audit(archive)
    (readable,) = found(report, "readable", ULD)
    assert readable.status == "fail" and "'f1' is " in readable.evidence
    (compared,) = found(report, "scores", ULD)
    assert compared.status == "pass" and "8 of 8" in compared.evidence


def test_a_missing_value_is_named(archive):
    publish(archive, ULD, answers(60, 4, offset=1), rouge2=None)
    (finding,) = found(audit(archive), "readable", ULD)
    assert finding.evidence == "In this file 'rouge2' is missing."


def test_an_empty_object_has_nothing_to_agree_with(archive):
    (archive / SCORES).write_text("{}")
    (finding,) = found(audit(archive), "scores", ULD)
    assert finding.status == "fail"


@pytest.mark.parametrize("stated", ['"60"', "60.0", "true", "[60]"])
def test_a_number_of_rows_that_is_none_is_named(archive, stated):
    text = (
        (archive / SCORES)
        .read_text()
        .replace('"samples_number": 60', f'"samples_number": {stated}')
    )
    (archive / SCORES).write_text(text)
    (finding,) = found(audit(archive), "readable", ULD)
    assert "'samples_number' is " in finding.evidence


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ('{"answers": "fox", "predic', "line 2 is no JSON"),
        ("[]", "line 2 holds no JSON object"),
        ('{"answers": "fox"}', "line 2: 'prediction_text' is missing"),
        ('{"prediction_text": "fox"}', "line 2: 'answers' is missing"),
        ('{"answers": 3, "prediction_text": "fox"}', "line 2: 'answers' is missing or of no known"),
        ('{"answers": [3], "prediction_text": "fox"}', "line 2: an answer is no text"),
        ('{"answers": [{}], "prediction_text": "fox"}', "line 2: an answer is no text"),
        ('{"answers": {"text": 3}, "prediction_text": ""}', "line 2: 'answers' is missing or of"),
        ('{"answers": "fox", "prediction_text": null}', "line 2: 'prediction_text' is missing"),
    ],
)
def test_predictions_that_cannot_be_read_are_one_finding_and_the_file_is_not_audited(
    archive, line, told
):
    (archive / PREDICTIONS).write_text(f"{GOOD_LINE}\n{line}\n")
    report = audit(archive)
    (readable,) = found(report, "readable", PREDICTIONS)
    assert readable.status == "fail" and told in readable.evidence
    (compared,) = found(report, "scores", ULD)
    assert compared.status == "not applicable"
    assert "its predictions file is unreadable" in compared.evidence


def test_no_predictions_in_the_file_is_a_finding(archive):
    (archive / PREDICTIONS).write_text("\n\n")
    (finding,) = found(audit(archive), "readable", PREDICTIONS)
    assert "holds no predictions" in finding.evidence


def test_odd_texts_are_scored(archive):
    """Half a surrogate pair, a line separator, NUL, no references, nothing but empty answers."""
    lines = [
        {"answers": "fox\ud800", "prediction_text": "fox\ud800 \u2028 \0"},
        {"answers": [], "prediction_text": ""},
    ]
    publish(archive, ULD, lines)
    (compared,) = found(audit(archive), "scores", ULD)
    assert compared.status == "pass"
    publish(archive, ULD, [{"answers": "", "prediction_text": ""}])
    (empty,) = found(audit(archive), "empty candidates", ULD)
    assert (empty.status, empty.evidence) == ("warn", "1 of 1 predictions are empty.")


def test_a_file_that_is_too_large_is_not_read(archive, monkeypatch):
    monkeypatch.setattr(archive_module, "MAX_BYTES", 2000)
    (finding,) = found(audit(archive), "readable", PREDICTIONS)
    assert finding.status == "fail" and "larger than" in finding.evidence


def test_links_that_leave_the_folder_are_not_followed(archive, tmp_path):
    outside = tmp_path / "outside.json"
    outside.write_text(f"{GOOD_LINE}\n")
    (archive / PREDICTIONS).unlink()
    (archive / PREDICTIONS).symlink_to(outside)
    (archive / "elsewhere").symlink_to(tmp_path, target_is_directory=True)
    (archive / "loop").symlink_to("loop")
    report = audit(archive)
    told = {f.subject: f.evidence for f in found(report, "readable") if f.status == "warn"}
    assert told == {
        PREDICTIONS: "Left out: a symbolic link that leaves the folder, not followed.",
        "elsewhere": "Left out: a symbolic link to a folder, not followed.",
        "loop": "Left out: a symbolic link to nothing.",
    }
    (compared,) = found(report, "scores", ULD)
    assert "a symbolic link that leaves the folder" in compared.evidence


def test_a_link_within_the_folder_is_read(archive):
    (archive / PREDICTIONS).rename(archive / "blob")
    (archive / PREDICTIONS).symlink_to(archive / "blob")
    (finding,) = found(audit(archive), "scores", ULD)
    assert finding.status == "pass"


def test_a_pipe_is_not_opened(archive):
    (archive / PREDICTIONS).unlink()
    os.mkfifo(archive / PREDICTIONS)
    (finding,) = found(audit(archive), "readable", PREDICTIONS)
    assert finding.evidence == "Left out: not a regular file."


def test_misplaced_and_orphaned_files_are_named(archive):
    (archive / "0shots.json").write_text("{}")
    (archive / ORPHAN).parent.mkdir(parents=True)
    (archive / ORPHAN).write_text(GOOD_LINE)
    report = audit(archive)
    (misplaced,) = found(report, "readable", "0shots.json")[:1]
    assert misplaced.status == "fail" and "lies neither in" in misplaced.evidence
    (orphan,) = found(report, "readable", ORPHAN)
    assert orphan.status == "warn" and "without a score file" in orphan.evidence


@pytest.mark.parametrize(
    "name", ["$(touch owned)", "a; touch owned", "-rf", "it's", "[red]x[/red]"]
)
def test_names_are_quoted_in_suggested_commands(archive, name):
    publish(archive, ULD.replace("pupil-1m", name), answers(60, 3), samples_number=1, squad=0.0)
    commands = [f.next_command for f in audit(archive).findings if f.next_command]
    named = [text for text in commands if any(name in word for word in shlex.split(text))]
    assert {text.split()[0] for text in named} == {"cat", "kd", "wc"}
    for text in named:
        if not text.startswith("kd"):
            subprocess.run(["bash", "-c", text], cwd=archive, check=True)
    assert not (archive / "owned").exists()


def test_control_characters_in_names_and_values_reach_no_terminal(archive):
    folder = ULD.replace("pupil-1m", "\x1b[2Jpupil\n")
    publish(archive, folder, answers(60, 3), samples_number=1, dataset="\x1b]0;title\x07")
    os.makedirs(os.fsencode(archive) + b"/\xff/zoo/t/d0/1")
    Path(os.fsdecode(os.fsencode(archive) + b"/\xff/zoo/t/d0/1/0shots.json")).write_text("{")
    report = audit(archive)
    for finding in report.findings:
        for text in (finding.subject, finding.evidence, finding.next_command):
            assert text.isprintable()
    assert any("\\x1b[2Jpupil\\n" in finding.subject for finding in report.findings)
    assert report.to_json().isascii()


def test_nothing_is_written_and_the_result_depends_on_the_archive_alone(archive, tmp_path):
    def contents(root: Path) -> dict[str, tuple[int, bytes]]:
        files = (path for path in root.rglob("*") if path.is_file())
        return {str(p.relative_to(root)): (p.stat().st_mtime_ns, p.read_bytes()) for p in files}

    before = contents(archive)
    first = audit(archive).to_json()
    assert contents(archive) == before
    moved = tmp_path / "other place" / archive.name
    moved.parent.mkdir()
    archive.rename(moved)
    assert audit(moved).to_json() == first
    assert str(tmp_path) not in first


def test_no_network_is_used(archive, monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("network")

    monkeypatch.setattr(socket, "socket", refuse)
    audit(archive)


def test_no_torch_is_imported(archive):
    code = (
        "import sys; from pathlib import Path; "
        "from kd.audit.published.report import audit_published; "
        "audit_published(Path(sys.argv[1]), 'uld'); "
        "assert not {'torch', 'transformers', 'rouge_score', 'nltk'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code, str(archive)], check=True)


def test_duplicated_scores_of_a_shorter_file_are_no_copies(archive):
    """Zeros are shared by many files: they do not count."""
    zero = {name: 0.0 for name in scores(answers(3, 2)) if name != "samples_number"}
    publish(archive, "original/a/zoo/untitled", None, **zero)
    publish(archive, "original/b/zoo/untitled", None, **zero)
    (finding,) = found(audit(archive), "duplicates")
    assert finding.status == "pass"
