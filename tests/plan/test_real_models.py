"""Estimates for models that nobody has run here: arithmetic, by hand; never micro's history."""

import pytest
import yaml
from typer.testing import CliRunner

from kd.commands.planning import _print_limits, demand_lines, size
from kd.experiment.models import Scale
from kd.experiment.schema import Experiment
from kd.plan.demands import CHECKPOINT, Physics
from kd.plan.devices import DEVICES, DeviceError, device_called
from kd.plan.estimate import OVERHEAD, Estimator
from kd.plan.history import Measured
from kd.plan.jobs import Job
from kd.plan.limits import Limit, limits
from kd.plan.physical import (
    COMPUTE,
    DISK,
    HALF,
    START,
    TRAFFIC,
    Subject,
    dense_bytes,
    kept_bytes,
    taken,
)
from kd.plan.plan import Plan, _by_stage, _estimate
from kd.plan.work import Work, World, work_of
from kd.workflow import limits_as_profile

A100 = DEVICES["a100"]
ROWS = {"train": 1000, "validation": 100, "test": 50}
BILLION = Scale(parameters=1e9, vocabulary=32000)
HUB = {"source": "hub", "repo": "o/n", "revision": "main"}
EXPERIMENT = {
    "name": "real",
    "datasets": {
        "squad": HUB
        | {"task": "qa", "metric": "f1", "rows": ROWS}
        | {"hub_splits": {"train": "train", "validation": "validation", "test": "test"}}
    },
    "teachers": {
        "large": HUB
        | {"shots": 2, "scale": {"parameters": 7e9, "vocabulary": 32000}}
        | {"load": {"dtype": "bfloat16"}}
    },
    "students": {
        "small": HUB | {"scale": {"parameters": 4e8, "vocabulary": 50304}},
        "unknown": HUB,
    },
    "methods": {"text": {"loss": "none"}, "uld": {"loss": "uld"}}
    | {"live": {"loss": "uld", "responses": {"policy": "mixed", "student_fraction": 1.0}}},
    "training": {"learning_rate": 1e-5, "epochs": 3},
    "tables": {"table2": {"title": "x"}},
}


@pytest.fixture
def physics() -> Physics:
    return Physics(Experiment.model_validate(EXPERIMENT), A100)


def subject(half: bool = True, shots: int = 0) -> Subject:
    return Subject(BILLION, half, "qa", ROWS, shots, weight=2 if half else 4)


def distillation(student: str = "small", method: str = "uld", fraction: int = 100) -> Job:
    spec = {
        "fraction": fraction,
        "training": {"epochs": 3, "validations": 5},
        "method": {"loss": "none" if method == "text" else method},
    }
    out = f"results/real/runs/squad/large/{student}/{method}/f{fraction}/s0"
    return Job("distill", spec, (), out, pending=True)


EXTRACTION = Job("extract", {}, (), "results/real/teachers/large/squad/logits", pending=True)


def test_extraction_is_a_forward_pass_over_prompts_and_answers() -> None:
    found = taken("extract", {}, subject(), A100)
    forward = 2e9 * 1100 * (225 + 6) / (COMPUTE * A100.half)
    assert found is not None
    assert found.seconds == pytest.approx(START + 2e9 / DISK + forward)
    assert found.bytes == 1100 * 6 * kept_bytes({}, BILLION)
    assert dense_bytes(subject()) == 1100 * 6 * 32000 * 2


def test_generation_reads_all_weights_once_a_batch_and_token() -> None:
    spec = {"generation": {"batch_size": 10}}
    found = taken("predict", spec, subject(shots=1), A100)
    tokens = 50 * (225 + (225 + 6) + 6)
    reads = 50 * 6 / 10 * 2e9 / (TRAFFIC * A100.bandwidth)
    expected = START + 2e9 / DISK + 2e9 * tokens / (COMPUTE * A100.half) + reads
    assert found is not None and found.seconds == pytest.approx(expected)


def test_training_is_three_forward_passes_in_float32() -> None:
    found = taken("distill", distillation(fraction=50).spec, subject(half=False), A100)
    passes = 3 * 1000 * 0.5 * 3 + 100 * 5
    expected = START + 4e9 / DISK + 2e9 * passes * 231 / (COMPUTE * A100.single)
    assert found is not None and found.seconds == pytest.approx(expected)


def test_what_is_kept_of_a_position_follows_the_experiment() -> None:
    assert kept_bytes({"epsilon": 1e-3}, BILLION) == 11 + 4 * 50
    assert kept_bytes({"epsilon": 1e-3, "ids": False}, BILLION) == 11 + 2 * 50
    assert kept_bytes({"epsilon": 1e-3, "cap": 20}, BILLION) == 11 + 4 * 20
    assert kept_bytes({"epsilon": 1e-3, "precision": "full"}, BILLION) == 11 + 6 * 50
    assert kept_bytes({"epsilon": 0.0}, BILLION) == 11 + 6 * 32000  # whole distributions
    assert kept_bytes({"sampling": {"draws": 30}}, BILLION) == 11 + 4 * 30
    assert kept_bytes({}, BILLION) > kept_bytes({"epsilon": 1e-3}, BILLION)


def test_a_token_budget_sets_the_rows_of_a_batch() -> None:
    given = {"generation": {"batch_size": 1, "token_budget": 2600, "max_new_tokens": 35}}
    same = {"generation": {"batch_size": 10}}  # 225 + 35 tokens each
    assert taken("predict", given, subject(), A100) == taken("predict", same, subject(), A100)


def test_precision_is_that_of_the_experiment() -> None:
    def loaded(**load: str) -> float:
        teacher = {**EXPERIMENT["teachers"]["large"], "load": load or None}
        given = EXPERIMENT | {"teachers": {"large": teacher}}
        return Physics(Experiment.model_validate(given), A100).taken(EXTRACTION).seconds

    assert loaded() == loaded(dtype="float32") > 5 * loaded(dtype="bfloat16")
    assert loaded(dtype="bfloat16") > loaded(dtype="bfloat16", quantisation="4bit")


def test_half_precision_in_training_and_one_replica_of_four(physics) -> None:
    whole, half, part = distillation(), distillation(), distillation()
    half.spec["training"]["precision"] = "bfloat16"
    part.spec["training"]["replicas"] = 4
    seconds = [physics.taken(job).seconds for job in (whole, half, part)]
    assert seconds[1] < seconds[0] and seconds[2] < seconds[0]
    saved = [physics.demands([job], {0: 1.0}).teacher_seconds for job in (whole, part)]
    assert saved[1] == pytest.approx(saved[0] / 4)


def test_stages_without_a_model_take_no_gpu() -> None:
    assert taken("score", {}, subject(), A100) is None


def test_demands_add_up_and_say_what_the_store_saves(physics) -> None:
    jobs = [EXTRACTION, distillation(), distillation(method="text")]
    seconds = {index: physics.taken(job).seconds for index, job in enumerate(jobs)}
    found = physics.demands(jobs, seconds)
    assert found.gpu_seconds == pytest.approx(sum(seconds.values()))
    assert found.students == 2 * 4 * 4e8
    assert found.checkpoint == CHECKPOINT * 4e8
    assert found.dense == 1100 * 6 * 32000 * 2
    # Three epochs of ULD; training on text runs no teacher.
    large = Scale(parameters=7e9, vocabulary=32000)
    once = taken("extract", {}, Subject(large, True, "qa", ROWS, shots=2, weight=HALF), A100)
    assert found.teacher_seconds == pytest.approx(3 * once.seconds)


def test_a_teacher_that_runs_anyway_is_in_the_job_and_not_added(physics) -> None:
    stored, live = distillation(), distillation(method="live")
    live.spec["method"]["loss"] = "uld"
    saved = physics.demands([stored], {0: 1.0}).teacher_seconds
    # Three epochs of 1,000 rows, each answered with six tokens, eight rows at a time.
    small = Subject(Scale(parameters=4e8, vocabulary=50304), False, "qa", ROWS)
    tokens, steps = 3000 * (small.prompt + 6), 3000 / 8 * 6
    sampled = 2 * 4e8 * tokens / (COMPUTE * A100.single)
    sampled += steps * 4 * 4e8 / (TRAFFIC * A100.bandwidth)
    expected = physics.taken(stored).seconds + saved + sampled
    assert physics.taken(live).seconds == pytest.approx(expected)
    assert physics.demands([stored, live], {0: 1.0, 1: 1.0}).teacher_seconds == saved


def test_finished_jobs_ask_for_nothing(physics) -> None:
    assert physics.demands([distillation()], {}) is None


def test_a_model_of_unknown_size_is_real_and_not_estimated(physics) -> None:
    job = distillation("unknown")
    assert physics.is_real(job) and physics.taken(job) is None


def test_history_of_micro_models_says_nothing_of_real_ones() -> None:
    micro = Measured(Work("distill", 100, ("opt/small/1000", "uld")), 5.0)
    estimator = Estimator([micro], [micro])
    work = Work("distill", 100, ("facebook/opt-350m", "uld"))
    assert estimator.estimate_real(work, 3600.0).seconds == 3600
    assert estimator.estimate_real(work, None).origin == "unknown"
    own = Measured(work, 700.0)
    found = Estimator([micro, own], []).estimate_real(work, 3600.0)
    assert (found.seconds, found.origin) == (pytest.approx(700 + OVERHEAD), "measured here")


def test_demands_in_sentences(physics) -> None:
    found = physics.demands([distillation()], {0: 7200.0})
    lines = demand_lines(found, 2.5)
    assert lines[0] == "GPU: 2 hours of one a100, 5.00 at 2.5 an hour."
    assert "students 1.6 GB" in lines[1] and "checkpoints up to 19.2 GB" in lines[1]
    assert size(2.5e12) == "2.5 TB" and size(12) == "12 B"


def test_less_than_an_hour_is_not_nothing(physics) -> None:
    assert demand_lines(physics.demands([distillation()], {0: 900.0}), 2.0)[0] == (
        "GPU: 0.25 hours of one a100, 0.50 at 2 an hour."
    )


def test_a_checkpoint_passes_through_main_memory(physics) -> None:
    assert physics.host_megabytes(distillation()) == 4000 + 16 * 400
    assert physics.host_megabytes(EXTRACTION) == 4000 + 4 * 7000


def test_a_stage_of_unknown_size_gets_no_limit(physics, capsys) -> None:
    jobs = [EXTRACTION, distillation(), distillation("unknown")]
    estimates = [_estimate(job, World({}, {}), Estimator([], []), physics) for job in jobs]
    stages = _by_stage(jobs, estimates, {})
    assert [one.limit is None for one in stages] == [False, True]
    _print_limits(Plan(stages, 1, 0.0, 0.0, 1.0, None))
    printed = capsys.readouterr().out
    assert set(yaml.safe_load(printed)["set-resources"]) == {"extract", "extract_variant"}
    assert "# distill: how long it takes is unknown" in printed


def test_scores_without_an_encoder_tell_nothing_of_bertscore() -> None:
    world, place = World({}, {"squad": ROWS}), "native/squad/small/eval/squad/scores.json"
    encoder = {"model": "organisation/encoder", "layer": 1}
    plain, encoded = (
        work_of("score", {"evaluation": {"bertscore": given}}, place, world)
        for given in (None, encoder)
    )
    estimator = Estimator([], [Measured(plain, 1.0)])
    assert estimator.estimate(plain).origin == "reference machine"
    assert estimator.estimate(encoded).origin == "unknown"
    estimator = Estimator([Measured(encoded, 60.0)], [Measured(plain, 1.0)])
    assert estimator.estimate(encoded).seconds == pytest.approx(60 + OVERHEAD)


def test_an_unknown_gpu_is_refused_with_the_nearest() -> None:
    with pytest.raises(DeviceError, match="h100"):
        device_called("h10")


def test_limits_double_the_longest_job_and_leave_room_in_memory() -> None:
    found = limits({"distill": [60, 3000], "score": [1]}, {"distill": 1400})
    assert found == {"distill": Limit(100, 2500), "score": Limit(10, 2000)}
    profile = yaml.safe_load(
        limits_as_profile({"predict": (20, 2000), "score": (10, 2000), "data": (1, 1)})
    )
    rules = profile["set-resources"]
    assert rules["predict_native"] == {"runtime": 20, "mem_mb": "2000 * attempt"}
    assert rules["score"] == {"runtime": 10, "mem_mb": "2000 * attempt", "turn": 1}
    assert "data" not in rules


def test_the_command_names_its_gpus() -> None:
    import kd.commands.planning

    result = CliRunner().invoke(kd.commands.planning.app, ["--help"])
    assert all(name in result.output for name in DEVICES)
