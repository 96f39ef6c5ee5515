"""Plans: which jobs there are, what each waits for, and how long they take."""

import json
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

import kd.plan.plan
from kd.cli import app
from kd.commands.planning import duration
from kd.errors import ExperimentError
from kd.experiment.loading import find_experiment, load_experiment
from kd.plan.devices import DEVICES
from kd.plan.estimate import OVERHEAD, Estimator
from kd.plan.history import Measured, as_json, read_history, reference
from kd.plan.jobs import parse_jobs, predecessors
from kd.plan.plan import make_plan
from kd.plan.schedule import critical_path, makespan
from kd.plan.work import Work, World, subject_of, work_of
from kd.workflow import refusal

COMMANDS = [
    "kd data --spec '{}' --root . --out results/e/data/squad > log 2>&1",
    "kd pretrain --spec '{}' --data results/e/data --out results/e/models/opt > log 2>&1",
    "kd predict --spec '{}' --model results/e/models/opt/model --data results/e/data/squad "
    "--out results/e/native/squad/opt/eval/squad/predictions.parquet > log 2>&1",
    "kd score --spec '{}' --predictions results/e/native/squad/opt/eval/squad/predictions.parquet "
    "--out results/e/native/squad/opt/eval/squad/scores.json > log 2>&1",
    "kd table --spec '{}' --results results/e --out results/e/tables  > log 2>&1",
    "cp a b && kd show b 2> log",
]


def test_a_job_waits_for_those_whose_outputs_it_reads() -> None:
    jobs = parse_jobs(COMMANDS, COMMANDS[2:])
    assert [job.stage for job in jobs] == ["data", "pretrain", "predict", "score", "table"]
    assert [job.pending for job in jobs] == [False, False, True, True, True]
    # A folder around data, a folder inside the model's, the very file, a folder around all.
    assert predecessors(jobs) == [[], [0], [0, 1], [2], [0, 1, 2, 3]]


@pytest.mark.parametrize(
    ("place", "expected"),
    [
        ("data/squad", ("", "squad")),
        ("models/opt", ("opt", "")),
        ("teachers/llama/squad/answers.parquet", ("llama", "squad")),
        ("teachers/llama/squad/eval/qed/scores.json", ("llama", "qed")),
        ("native/squad/opt/eval/squad/predictions.parquet", ("opt", "squad")),
        ("runs/squad/llama/opt/uld/f100/s0", ("opt", "squad")),
        ("runs/squad/llama/opt/uld/f100/s0/eval/qed/scores.json", ("opt", "qed")),
    ],
)
def test_a_path_says_model_and_dataset(place: str, expected: tuple[str, str]) -> None:
    assert subject_of(place) == expected


def test_the_work_of_a_distillation_counts_rows_fraction_epochs_and_validations() -> None:
    world = World({"opt": "opt/small/1000"}, {"squad": {"train": 200, "validation": 50}})
    spec = {
        "fraction": 50,
        "training": {"epochs": 3, "validations": 10},
        "method": {"loss": "uld", "alignment": None, "responses": {"policy": "teacher"}},
    }
    found = work_of("distill", spec, "runs/squad/llama/opt/uld/f50/s0", world)
    assert found.units == pytest.approx(200 * 0.5 * 3 + 0.4 * 50 * 10)
    assert found.traits[0] == "opt/small/1000"


def test_the_closest_history_decides() -> None:
    def measured(units: float, seconds: float, *traits: str) -> Measured:
        return Measured(Work("distill", units, traits), seconds)

    here = [measured(100, 10, "opt", "uld"), measured(100, 4, "opt", "none")]
    there = [measured(100, 5, "opt", "uld"), measured(1000, 90, "bloom", "uld")]
    estimator = Estimator(here, there)
    assert estimator.speed == pytest.approx(2.0)  # 10 s here, 5 s there

    same = estimator.estimate(Work("distill", 200, ("opt", "uld")))
    assert (same.seconds, same.origin) == (pytest.approx(20 + OVERHEAD), "measured here")
    other_loss = estimator.estimate(Work("distill", 100, ("opt", "kl")))
    assert other_loss.seconds == pytest.approx(7 + OVERHEAD)  # the median of the model's rates
    other_model = estimator.estimate(Work("distill", 1000, ("bloom", "uld")))
    assert other_model.origin == "reference machine"
    assert other_model.seconds == pytest.approx(2 * 90 + OVERHEAD)
    assert estimator.estimate(Work("answer", 100, ("opt",))).origin == "unknown"


def test_short_jobs_say_little_about_long_ones() -> None:
    work = Work("predict", 200, ("opt",))
    small = Measured(Work("predict", 20, ("opt",)), 2.0)
    estimator = Estimator([small], [Measured(work, 5.0)])
    assert estimator.estimate(work).seconds == pytest.approx(5.0 + OVERHEAD)


GRAPHS = st.lists(
    st.tuples(st.floats(0.1, 10), st.sets(st.integers(0, 11))), min_size=1, max_size=12
)


@settings(max_examples=50)
@given(GRAPHS, st.integers(1, 4))
def test_a_schedule_is_bounded_by_work_and_by_the_longest_chain(
    graph: list[tuple[float, set[int]]], workers: int
) -> None:
    seconds = [one for one, _ in graph]
    before = [
        [other for other in wanted if other < index] for index, (_, wanted) in enumerate(graph)
    ]
    longest = max(critical_path(seconds, before))
    found = makespan(seconds, before, workers)
    least = max(longest, sum(seconds) / workers)
    assert least - 1e-9 <= found <= sum(seconds) / workers + longest + 1e-9  # Graham's bound
    assert makespan(seconds, before, 1) == pytest.approx(sum(seconds))


def test_a_circle_is_refused() -> None:
    with pytest.raises(ValueError, match="circle"):
        critical_path([1.0, 1.0], [[1], [0]])


def _manifest(
    folder: Path, stage: str, spec: object, context: object, notes: object = None
) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    hashed = {"stage": stage, "spec": spec, "numerics": {"device": "cpu"}}
    content = {"hashed": hashed, "context": context, "notes": notes}
    (folder / f"{stage}.manifest.json").write_text(json.dumps(content))


def test_history_is_read_from_manifests_and_damaged_ones_are_passed_over(tmp_path: Path) -> None:
    folder = tmp_path / "e"
    rows = {"rows": {"train": 80, "validation": 20, "test": 40}}
    _manifest(folder / "data/squad", "data", {}, {"seconds": 3.0}, rows)
    micro = {"source": "micro", "architecture": "opt", "size": "tiny"}
    micro |= {"tokenizer": {"vocabulary": 300}, "pretraining": {"steps": 10, "batch_size": 5}}
    _manifest(folder / "models/opt", "pretrain", {"model": micro}, {"seconds": 9, "cpu_seconds": 7})
    _manifest(folder / "native/squad/opt/eval/squad", "predict", {}, {"seconds": 2.0})
    (folder / "native/squad/opt/eval/squad/score.manifest.json").write_text("{")
    for place in ("data/qed/data.manifest.json", "models/bloom/pretrain.manifest.json"):
        (folder / place).parent.mkdir()
        (folder / place).write_text("{")
    assert read_history(tmp_path) == [
        Measured(Work("data", 140), 3.0),
        Measured(Work("pretrain", 50, ("opt/tiny/300",)), 7.0),
        Measured(Work("predict", 40, ("opt/tiny/300",)), 2.0),
    ]


def test_the_reference_is_shipped_and_knows_every_stage_of_micro() -> None:
    stages = {one.work.stage for one in reference()}
    assert stages >= {"data", "pretrain", "answer", "extract", "distill", "predict", "score"}
    assert as_json(reference())[0]["seconds"] > 0


def test_done_jobs_take_no_time(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    every = COMMANDS[3:5]

    def planned(*_: object, everything: bool = False, **__: object) -> list[str]:
        return every if everything else every[1:]

    monkeypatch.setattr(kd.plan.plan, "planned_commands", planned)
    experiment = load_experiment(find_experiment("smoke"))
    plan = make_plan(
        [], experiment, overrides={}, checkout=tmp_path, workers=2, device=DEVICES["a100"]
    )
    score, table = plan.stages
    assert (score.jobs, score.cached, score.seconds, score.origins) == (1, 1, 0.0, {})
    assert (table.jobs, table.cached) == (1, 0)
    assert plan.seconds == plan.busy == plan.critical == table.seconds > 0


@pytest.mark.workflow
@pytest.mark.xdist_group("workflow")
def test_the_plan_of_smoke_has_all_its_jobs() -> None:
    done = subprocess.run(
        ["kd", "plan", "results/table2.csv", "--experiment", "smoke", "--json", "--cores", "2"],
        capture_output=True,
        text=True,
        check=True,
        timeout=300,
    )
    plan = json.loads(done.stdout)
    jobs = {stage["stage"]: stage["jobs"] for stage in plan["stages"]}
    expected = {"data": 1, "pretrain": 2, "answer": 1, "extract": 1, "distill": 2}
    assert jobs == expected | {"predict": 4, "score": 4, "table": 1, "track": 1}
    assert plan["critical"] <= plan["seconds"] + 1e-6 <= plan["busy"]


@pytest.mark.parametrize(
    ("seconds", "expected"), [(0.4, "0 s"), (200, "3 min 20 s"), (7500, "2 h 05 min")]
)
def test_durations_are_for_people(seconds: float, expected: str) -> None:
    assert duration(seconds) == expected


def test_why_snakemake_refused_is_said():
    """The exception stands above its sentence, in standard output; a note follows in the other."""
    output = "Building DAG of jobs...\nMissingRuleException:\nNo rule to produce nosuch.csv.\n"
    note = "Using workflow specific profile profiles/default for setting defaults.\n"
    assert refusal(output, note) == "No rule to produce nosuch.csv."
    assert refusal("Building DAG\n", f"{note}kd: error: no such experiment.\n") == (
        "no such experiment."
    )
    assert refusal("", "usage\nunrecognized arguments: --x\n") == "unrecognized arguments: --x"
    assert refusal("", note) == "no reason given"


def test_the_experiment_may_be_given_as_to_snakemake(monkeypatch) -> None:
    def refuse(targets, loaded, **_):
        raise ExperimentError(f"planned {loaded.name}")

    monkeypatch.setattr(kd.plan.plan, "make_plan", refuse)
    words = ["plan", "results/table2.csv", "--config", "experiment=smoke"]
    assert str(CliRunner().invoke(app, words).exception) == "planned smoke"


def test_an_experiments_name_is_no_target() -> None:
    error = CliRunner().invoke(app, ["plan", "smoke"]).exception
    assert isinstance(error, ExperimentError)
    assert "--experiment smoke" in str(error)
