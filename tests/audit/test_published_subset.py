"""What is known of the ULD authors' archive is found in it.

Runs where KD_PUBLISHED_DIR names a checkout of github.com/Nicolas-BZRD/llm-distillation, or a
part of one that has the files named here.
"""

import os
import time
from collections import Counter
from pathlib import Path

import pytest

from kd.audit.published.report import audit_published
from tests.audit.published_archive import found

FOLDER = os.environ.get("KD_PUBLISHED_DIR")
pytestmark = pytest.mark.skipif(not FOLDER, reason="KD_PUBLISHED_DIR names no archive")

SECONDS_A_FILE = 0.8


@pytest.fixture(scope="module")
def timed():
    start = time.process_time()
    report = audit_published(Path(FOLDER), "uld")
    return report, time.process_time() - start


@pytest.fixture(scope="module")
def report(timed):
    return timed[0]


def one(report, check: str, *parts: str):
    (finding,) = [
        finding
        for finding in found(report, check, parts[0])
        if all(part in finding.subject for part in parts)
    ]
    return finding


def test_no_score_differs_from_its_predictions(report):
    counts = Counter(finding.status for finding in found(report, "scores"))
    assert counts["fail"] == 0
    assert counts["pass"] >= 12 and counts["not applicable"] >= 7


def test_deterministic_metrics_and_rouge_are_within_their_rules(report):
    for finding in found(report, "scores"):
        for row in finding.details.get("metrics", {}).values():
            if row["agrees"] is not None:
                off = abs(row["published"] - row["recomputed"])
                assert off <= 0.005 + 0.16 * row.get("standard_error", 0) + 1e-9


def test_a_teacher_file_holds_the_numbers_of_another_dataset(report):
    finding = one(report, "duplicates", "Mistral-7B-Instruct-v0.2/FairytaleQA")
    assert finding.status == "fail"
    assert "another dataset (qed, not FairytaleQA)" in finding.evidence
    assert "this file is the copy" in finding.evidence


def test_empty_candidates_drag_a_teacher_down(report):
    finding = one(report, "empty candidates", "original/Llama-2-7b-chat-hf/dialogsum")
    assert finding.status == "warn" and finding.details["empty"] == 24
    assert finding.details["without_empty"]["f1_bert"] == pytest.approx(33.9, abs=0.05)


def test_rows_differ_between_a_student_and_its_teacher(report):
    finding = one(report, "rows", "qed: Mistral-7B-Instruct-v0.2 to opt-350m")
    assert finding.status == "warn"
    assert "few-shot 1355" in finding.evidence and "ULD 1347" in finding.evidence


def test_scales_are_mixed(report):
    mixed = {f.subject for f in found(report, "scale") if f.status == "warn"}
    assert {"FairytaleQA", "dialogsum", "qed"} <= mixed


def test_checkpoints_are_picked_differently(report):
    finding = one(report, "settings", "dialogsum: Llama-2-7b-chat-hf to mt0-base")
    assert "checkpoint: teacher text 3684, ULD 1146" in finding.evidence


def test_what_cannot_be_audited_says_why(report):
    for folder in ("mt0-base", "opt-350m/squad/Mistral-7B-Instruct-v0.2/d1.5"):
        for finding in found(report, "scores", folder):
            assert finding.status == "not applicable"
            assert "no predictions file" in finding.evidence


def test_gains_are_tested_where_both_predictions_exist(report):
    gain = one(report, "significance", "dialogsum: Llama-2-7b-chat-hf to pythia-410m")
    assert gain.status == "pass"
    assert gain.details["f1"]["mean"] == pytest.approx(1.20, abs=0.01)
    chance = one(report, "significance", "qed: Mistral-7B-Instruct-v0.2 to opt-350m")
    assert chance.status == "warn"
    assert chance.details["f1"]["mean"] == pytest.approx(0.75, abs=0.01)
    assert chance.details["f1"]["standard_error"] == pytest.approx(0.67, abs=0.02)
    no = one(report, "significance", "squad: Mistral-7B-Instruct-v0.2 to bloomz-560m")
    assert no.status == "not applicable"


def test_sound_scoring_differs_where_there_are_several_references_or_spans(report):
    for folder in ("squad/Mistral-7B-Instruct-v0.2/d0", "Llama-2-7b-chat-hf/dialogsum", "/qed/"):
        audited = [f for f in found(report, "scoring protocol", folder) if "By" in f.evidence]
        assert audited and all(finding.status == "warn" for finding in audited)


def test_a_file_takes_less_than_the_time_allowed(timed):
    report, seconds = timed
    assert seconds / len(found(report, "scores")) < SECONDS_A_FILE
