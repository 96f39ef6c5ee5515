"""Each fault in an archive is found by the check that is meant for it; a sound one passes."""

import json
from pathlib import Path

import pytest

from kd.audit.published import encoder
from kd.audit.published.report import CHECKS, audit_published
from kd.errors import DataError, KdError, ModelError
from kd.evaluation.bertscore import BertScores, Encoder, Unavailable
from tests.audit.published_archive import (
    TEACHERS,
    TEXT,
    ULD,
    answers,
    found,
    publish,
    scores,
    sound_archive,
    statuses,
)


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    return sound_archive(tmp_path / "published")


def audit(root: Path):
    return audit_published(root, "uld")


def only(report, check: str, subject: str = ""):
    (finding,) = found(report, check, subject)
    return finding


def test_a_sound_archive_has_no_failure_and_no_warning(archive):
    report = audit(archive)
    assert statuses(report) == {check: {"pass"} for check in CHECKS}
    assert report.exit_code() == report.exit_code(strict=True) == 0
    assert report.summary.endswith("3 agree with their predictions, 0 differ, 0 cannot be audited")


@pytest.mark.parametrize("metric", ["f1", "precision", "recall", "em"])
def test_a_hundredth_of_a_point_is_found(archive, metric):
    right = scores(answers(60, 4, offset=1))[metric]
    publish(archive, ULD, answers(60, 4, offset=1), **{metric: right + 0.01})
    finding = only(audit(archive), "scores", ULD)
    assert finding.status == "fail"
    assert (
        f"{metric} is {right + 0.01:.2f}, but its predictions give {right:.2f}" in finding.evidence
    )
    assert finding.next_command.endswith(f"--only {ULD}/0shots.json")


@pytest.mark.parametrize("metric", ["rouge1", "rouge2", "rougeL", "rougeLsum"])
@pytest.mark.parametrize(("errors", "status"), [(0.15, "pass"), (-0.15, "pass"), (0.17, "fail")])
def test_rouge_may_be_off_by_the_error_of_a_bootstrap(archive, metric, errors, status):
    row = only(audit(archive), "scores", ULD).details["metrics"][metric]
    off = row["recomputed"] + errors * row["standard_error"] + 0.005 * (errors > 0.16)
    publish(archive, ULD, answers(60, 4, offset=1), **{metric: off})
    assert only(audit(archive), "scores", ULD).status == status


def test_a_prediction_that_was_changed_is_found(archive):
    lines = answers(60, 4, offset=1)
    publish(archive, ULD, lines)
    lines[7]["prediction_text"] = "nothing of it"
    path = archive / ULD / "predictions_0shots.json"
    path.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    assert only(audit(archive), "scores", ULD).status == "fail"


def test_every_metric_is_shown_by_both_scorings(archive):
    report = audit(archive)
    metrics = only(report, "scores", ULD).details["metrics"]
    assert list(metrics)[:2] == ["f1", "precision"] and len(metrics) == 12
    assert metrics["f1"]["recomputed"] == metrics["f1"]["correct"]
    assert metrics["f1_bert"]["recomputed"] is metrics["f1_bert"]["agrees"] is None


def test_without_predictions_nothing_can_be_audited_and_the_report_says_why(archive):
    (archive / ULD / "predictions_0shots.json").unlink()
    report = audit(archive)
    finding = only(report, "scores", ULD)
    assert finding.status == "not applicable"
    assert "no predictions file is published beside it" in finding.evidence
    assert only(report, "significance").status == "not applicable"
    assert (
        "2 of 3 score files can be recomputed. None can of zoo ULD (1)"
        in only(report, "coverage").evidence
    )


def test_rows_that_are_stated_must_be_there(archive):
    publish(archive, ULD, answers(60, 4, offset=1), samples_number=61)
    finding = only(audit(archive), "rows", ULD)
    assert (finding.status, finding.evidence) == (
        "fail",
        "States 61 rows; there are 60 predictions.",
    )
    publish(archive, ULD, answers(60, 4, offset=1), samples_number=None)
    assert only(audit(archive), "rows", ULD).status == "warn"


def test_methods_compared_should_have_the_same_rows(archive):
    publish(archive, TEXT, answers(60, 2)[4:])
    report = audit(archive)
    finding = only(report, "rows", "zoo: ")
    assert finding.status == "warn"
    assert "teach-7b few-shot 60, teacher text 56, ULD 60" in finding.evidence
    assert "On the 56 rows of teacher text, f1 of ULD is" in finding.evidence
    assert only(report, "significance").status == "not applicable"


def test_methods_compared_must_have_the_same_references(archive):
    lines = answers(60, 2)
    lines[0], lines[1] = lines[1], lines[0]
    publish(archive, TEXT, lines)
    report = audit(archive)
    assert only(report, "rows", "zoo: ").status == "fail"
    assert only(report, "significance").status == "not applicable"


def test_a_copy_from_another_dataset_is_found_though_it_was_cut_to_four_digits(archive):
    """And the copy is the file without predictions."""
    copied = scores(answers(60, 5))
    cut = {
        name: int(value * 100) / 10000 for name, value in copied.items() if name != "samples_number"
    }
    publish(archive, "original/teach-7b/farm/titled", None, shots=5, **cut)
    finding = only(audit(archive), "duplicates")
    assert (finding.status, finding.subject) == (
        "fail",
        "original/teach-7b/farm/titled/5shots.json",
    )
    assert "which is of another dataset (zoo, not farm)" in finding.evidence
    assert "so this file is the copy" in finding.evidence
    assert f"{TEACHERS}/0shots.json" in finding.next_command


def test_predictions_handed_in_twice_are_found(archive):
    publish(archive, ULD, answers(60, 2), f1=99.0)
    finding = only(audit(archive), "duplicates")
    assert finding.status == "fail" and finding.evidence.startswith("All predictions equal")


def test_one_run_published_in_two_places_is_only_a_warning(archive):
    publish(archive, f"again/{ULD}", answers(60, 4, offset=1))
    assert only(audit(archive), "duplicates").status == "warn"


def test_empty_candidates_drag_bertscore_down(archive):
    lines = answers(60, 4, offset=1)
    for line in lines[:6]:
        line["prediction_text"] = " "
    publish(archive, ULD, lines, f1_bert=-10.0)
    finding = only(audit(archive), "empty candidates", ULD)
    assert finding.status == "warn"
    assert finding.details["empty"] == 6
    # 54 of 60 rows hold x, 6 hold -0.83122575 / 0.16877425.
    without = (60 * -10.0 + 6 * 100 * 0.83122575 / 0.16877425) / 54
    assert finding.details["without_empty"]["f1_bert"] == pytest.approx(without)


def test_scales_may_be_mixed_between_files_and_values_are_still_compared(archive):
    unit = {
        name: value / 100
        for name, value in scores(answers(60, 5)).items()
        if name != "samples_number"
    }
    publish(archive, TEACHERS, answers(60, 5), shots=0, **unit)
    report = audit(archive)
    assert only(report, "scale").status == "warn"
    assert only(report, "scores", TEACHERS).status == "pass"


def test_scales_must_not_be_mixed_within_a_file(archive):
    publish(archive, ULD, answers(60, 4, offset=1), f1=0.95)
    finding = only(audit(archive), "scores", ULD)
    assert finding.status == "fail"
    assert "f1 seems to be in fractions" in finding.evidence


def test_percent_below_1_is_not_taken_for_a_fraction(archive):
    lines = answers(60, 4, offset=1)
    for line in lines:
        line["prediction_text"] = "nothing"
    lines[0]["prediction_text"] = "dog hen yak emu gnu ram"
    publish(archive, ULD, lines)
    assert 0 < scores(lines)["f1"] < 1
    assert only(audit(archive), "scores", ULD).status == "pass"


def test_checkpoints_picked_differently_are_named(archive):
    for path in (archive / ULD).iterdir():
        path.unlink()
    publish(archive, ULD.replace("/100", "/900"), answers(60, 4, offset=1))
    report = audit(archive)
    finding = only(report, "settings", "zoo: teach")
    assert finding.status == "warn"
    assert "checkpoint: teacher text 100, ULD 900" in finding.evidence
    assert (
        "later than that of teacher text in 1, earlier in 0"
        in only(report, "settings", archive.name).evidence
    )


def test_shots_and_titles_picked_differently_are_named(archive):
    publish(archive, "original/other/zoo/titled", answers(60, 7), shots=5)
    evidence = only(audit(archive), "settings", "before distillation").evidence
    assert "shots: other 5, teach-7b 0; title: other True, teach-7b False" in evidence


def test_a_gain_within_chance_is_said_to_be(archive):
    publish(archive, ULD, answers(60, 2, offset=1))
    finding = only(audit(archive), "significance")
    assert finding.status == "warn"
    assert "within chance" in finding.evidence


@pytest.mark.parametrize("rows", [1, 2, 11])
def test_of_few_rows_nothing_is_said(archive, rows):
    for folder, wrong in ((TEACHERS, 5), (TEXT, 2), (ULD, 4)):
        publish(archive, folder, answers(rows, wrong), shots=0)
    finding = only(audit(archive), "significance")
    assert finding.status == "not applicable"
    assert "12 of them or more" in finding.evidence


def test_a_loss_is_said_to_be(archive):
    publish(archive, TEXT, answers(60, 4, offset=1))
    publish(archive, ULD, answers(60, 2))
    finding = only(audit(archive), "significance")
    assert finding.status == "warn"
    assert finding.evidence.count("a loss") == 2


def test_several_checkpoints_of_a_method_are_told_apart(archive):
    publish(archive, ULD.replace("/100", "/900"), answers(60, 6))
    subjects = [finding.subject for finding in found(audit(archive), "significance")]
    assert sorted(subject.rpartition(", ULD ")[2] for subject in subjects) == [
        "(shots 0, checkpoint 100) against teacher text",
        "(shots 0, checkpoint 900) against teacher text",
    ]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (
            {"dataset": "home/farm"},
            "dataset is 'farm' with a model for 'zoo' in the file, 'zoo' in",
        ),
        (
            {"model": "x/train/teach-7b/pupil-1m/farm/d1.5/100"},
            "with a model for 'farm' in the file",
        ),
        ({"number_few_shot": 4}, "shots is '4' in the file, '0' in its path"),
        ({"model": "x/train/teach-7b/pupil-9m/zoo/d1.5/100"}, "model is 'pupil-9m' in the file"),
        ({"model": "x/train/teach-7b/pupil-1m/zoo/d1.5/200"}, "checkpoint is '200' in the file"),
    ],
)
def test_a_file_must_be_what_its_path_says(archive, change, told):
    publish(archive, ULD, answers(60, 4, offset=1), **change)
    finding = only(audit(archive), "identity", ULD)
    assert finding.status == "fail" and told in finding.evidence


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"squad": 12.0}, "squad is not the mean of f1 and em"),
        ({"f1": 99.9}, "f1 is above the mean of precision and recall"),
        ({"rougeL": 99.9, "rouge1": 90.0}, "rougeL is above rouge1"),
        ({"recall": 100.5}, "recall is 100.50, outside 0 to 100"),
    ],
)
def test_numbers_that_contradict_each_other_need_no_predictions(archive, change, told):
    publish(archive, ULD, None, **scores(answers(60, 4, offset=1)) | change)
    (archive / ULD / "predictions_0shots.json").unlink()
    finding = only(audit(archive), "arithmetic", ULD)
    assert finding.status == "fail" and told in finding.evidence


def test_scoring_that_is_not_sound_is_a_warning_with_its_reason(archive):
    lines = answers(60, 4, offset=1)
    for line in lines:
        line["answers"] = [line["answers"], line["answers"].split()[0]]
    publish(archive, ULD, lines)
    report = audit(archive)
    finding = only(report, "scoring protocol", ULD)
    assert finding.status == "warn"
    assert "precision or recall is from another reference than F1 (" in finding.evidence
    assert only(report, "scores", ULD).status == "pass"


def test_bertscore_is_recomputed_where_there_is_an_encoder(archive, monkeypatch):
    asked = []

    def fake(predictions, references, settings):
        asked.append((settings.layer, settings.rescale, len(predictions), references[0]))
        return BertScores([0.5] * len(predictions), Encoder("tiny", 17, True, "0"))

    monkeypatch.setattr(encoder, "bert_f1", fake)
    report = audit_published(archive, "uld", Path("tiny"))
    assert asked[0] == (17, True, 60, ("cat dog 0",))
    assert all(f.details["metrics"]["f1_bert"]["agrees"] for f in found(report, "scores"))
    publish(archive, ULD, answers(60, 4, offset=1), f1_bert=51.0)
    assert only(audit_published(archive, "uld", Path("tiny")), "scores", ULD).status == "fail"


def test_an_encoder_that_cannot_be_used_is_refused(archive, monkeypatch):
    monkeypatch.setattr(encoder, "bert_f1", lambda *_: Unavailable("no folder 'tiny'"))
    with pytest.raises(ModelError, match="--bertscore: no folder 'tiny'"):
        audit_published(archive, "uld", Path("tiny"))


def test_what_cannot_be_audited_at_all_is_refused_in_a_sentence(tmp_path):
    with pytest.raises(DataError, match="no such folder"):
        audit(tmp_path / "missing")
    with pytest.raises(DataError, match="no file in it is named like a score file"):
        audit(tmp_path)
    with pytest.raises(KdError, match=r"'udl' is no protocol\. Did you mean 'uld'"):
        audit_published(tmp_path, "udl")
    with pytest.raises(KdError, match="is no protocol"):
        audit_published(tmp_path, "../uld")
