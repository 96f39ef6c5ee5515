"""Which cells are repeated, and which tier a repeat reaches; nothing is trained here."""

import shutil
from unittest.mock import patch

import pytest

from kd.audit import repeat as module
from kd.audit.chain import Chain
from kd.audit.execution import Scratch, command_of
from kd.audit.notes import REPEATABILITY
from kd.audit.repeat import choose
from kd.audit.results import audit_results
from kd.audit.scope import Repeat, Settings, open_scope
from kd.audit.target import table_target
from kd.evaluation.predictions import read_predictions, write_predictions
from kd.evaluation.score import score
from kd.experiment.stages import ScoreSpec
from kd.provenance.manifest import StageRecord
from tests.audit.fabrication import Plan, recorded_as
from tests.audit.malpractice import blank
from tests.audit.mutations import audit
from tests.audit.tampering import EVAL, edit_context


@pytest.fixture
def scope(spoilt):
    """The spoilt world's scope, in which seed 1 of ULD was the cheapest to train."""
    edit_context("runs/squad/llama/opt/uld/f100/s1/distill", seconds=1.0)(spoilt)
    return open_scope(table_target(spoilt.table), Settings(experiment=str(spoilt.file)))


def test_the_cheapest_cells_are_repeated(scope):
    (first,) = choose(scope, Repeat(1))
    assert first.subject.endswith("uld/f100/s1")
    assert len(choose(scope, Repeat(99))) == 6


def test_random_cells_follow_from_the_seed(scope):
    def drawn(seed):
        return [one.place for one in choose(scope, Repeat(3, pick="random", seed=seed))]

    assert drawn(0) == drawn(0)
    assert len({tuple(drawn(seed)) for seed in range(5)}) > 1


@pytest.mark.parametrize(
    ("start", "stages"),
    [
        ("rows", ["data", "pretrain", "answer", "extract", "distill", "predict", "score"]),
        ("answers", ["answer", "extract", "distill", "predict", "score"]),
        ("logits", ["extract", "distill", "predict", "score"]),
        ("student", ["distill", "predict", "score"]),
        ("predictions", ["predict", "score"]),
    ],
)
def test_commands_read_what_is_made_again_and_the_rest_in_place(scope, tmp_path, start, stages):
    evaluation = next(one for one in scope.evaluations if one.subject.endswith("uld/f100/s1"))
    again = module._again(scope, evaluation, start)
    assert sorted({artifact.stage for artifact in again}) == sorted(stages)
    root = tmp_path / "scratch"
    scratch = Scratch(scope, root, frozenset(artifact.key for artifact in again))
    for artifact in again:
        words = command_of(scratch, artifact)
        assert words[0] == artifact.stage
        paths = {words[n]: words[n + 1] for n in range(1, len(words), 2)}
        assert paths["--out"].startswith(str(root))
        made_again = start == "rows" or artifact.stage == "score"
        if "--data" in paths:
            assert paths["--data"].startswith(str(root)) == made_again


def repeated(world, change=None):
    """Audit with a repeat whose predictions are the recorded ones, changed by `change`."""

    def run_again(scratch, artifacts):
        for artifact in artifacts:
            source = world.results / artifact.folder
            shutil.copytree(source, scratch.root / artifact.folder, dirs_exist_ok=True)
        if change is not None:
            with recorded_as(Plan()):
                remake(scratch.root / EVAL, artifacts, change)
        made = Chain(scratch.root)
        return [made.artifact(artifact.folder, artifact.name) for artifact in artifacts]

    def remake(folder, artifacts, change):
        path = folder / "predictions.parquet"
        specs = {artifact.stage: artifact.spec for artifact in artifacts}
        spec = ScoreSpec.model_validate(specs["score"])
        record = StageRecord("predict", spec, {}, ("kd.evaluation.predict",))
        write_predictions(change(read_predictions(path)), path)
        record.write(path)
        score(spec, path, folder / "scores.json")

    plan = Repeat(1, "predictions")
    chosen = {"method": "uld", "seed": "0"}
    with patch.object(module, "run_again", run_again):
        target = table_target(world.table, chosen)
        settings = Settings(experiment=str(world.file), checkout=world.root, repeat=plan)
        report, _ = audit_results(target, settings)
    (found,) = [one for one in report.findings if one.check == REPEATABILITY]
    return found


def test_tier_1_is_identical_bytes(clean):
    found = repeated(clean)
    assert (found.status, found.details["tier"]) == ("pass", "identical bytes")
    assert "first difference" not in found.evidence


def test_tier_2_is_identical_predictions_in_other_bytes(clean):
    found = repeated(clean, lambda rows: [row.model_copy(update={"tokens": 9}) for row in rows])
    assert (found.status, found.details["tier"]) == ("pass", "identical predictions")


def test_tier_3_is_a_score_inside_the_prediction_interval(clean):
    def one_answer_less(rows):
        right = next(n for n, row in enumerate(rows) if row.prediction == row.references[0])
        wrong = rows[right].model_copy(update={"prediction": "someone else"})
        return [*rows[:right], wrong, *rows[right + 1 :]]

    found = repeated(clean, one_answer_less)
    assert found.details["tier"] == "inside the prediction interval"
    assert found.details["before"] > found.details["after"]
    assert f"first difference: {EVAL}/predict: " in found.evidence


def test_no_tier_is_a_warning_where_nothing_promises_the_same_bytes(clean):
    # The records made here differ from the recorded ones in their specification.
    found = repeated(clean, blank)
    assert (found.status, found.details["tier"]) == ("warn", "none")
    assert found.next_command.startswith("kd explain results/tiny/")


def test_a_repeat_that_fails_is_a_failure(clean):
    report = audit(clean, repeat=Repeat(1, "predictions"))
    (found,) = [one for one in report.findings if one.check == REPEATABILITY]
    assert found.status == "fail"
    assert "it cannot be made again: " in found.evidence
