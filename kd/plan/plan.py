"""A plan: the jobs of a target with their times, by stage and in total."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePath
from typing import Any

from kd.experiment.schema import Experiment
from kd.plan.demands import Demands, Physics
from kd.plan.devices import Device
from kd.plan.estimate import Estimate, Estimator
from kd.plan.history import Measured, read_history, reference
from kd.plan.jobs import ORDER, Job, parse_jobs, predecessors
from kd.plan.limits import Limit, limits
from kd.plan.schedule import critical_path, makespan
from kd.plan.work import Work, World, model_kind, work_of
from kd.workflow import planned_commands


@dataclass(frozen=True)
class StagePlan:
    """The jobs of one stage: how many there are, would run, and take."""

    stage: str
    jobs: int
    cached: int
    seconds: float  # of those that would run
    origins: dict[str, int]  # origin of an estimate to jobs that would run
    limit: Limit | None  # for a batch system, of its longest and largest job; None: unknown


@dataclass(frozen=True)
class Plan:
    """What a target takes.

    Attributes:
        stages: in the order of the chain.
        workers: jobs at a time.
        seconds: from the start of the first job to the end of the last.
        critical: seconds of the longest chain of jobs: no number of workers beats it.
        speed: of this machine, as the reference machine's time for the same work divides it.
        demands: of the jobs with real models, if there are any.
    """

    stages: list[StagePlan]
    workers: int
    seconds: float
    critical: float
    speed: float
    demands: Demands | None

    @property
    def busy(self) -> float:
        """Seconds of all jobs that would run, one after the other."""
        return sum(stage.seconds for stage in self.stages)


def make_plan(
    targets: Sequence[str],
    experiment: Experiment,
    *,
    overrides: Mapping[str, Any],
    checkout: Path,
    workers: int,
    device: Device,
) -> Plan:
    """Plan `targets` of `experiment`; nothing is made.

    Args:
        targets: files, as the rules name them; none for the default target.
        experiment: with `overrides` applied.
        overrides: as for `snakemake --config`.
        checkout: folder of the Snakefile, and of `results/`.
        workers: jobs at a time.
        device: the GPU for real models.

    Raises:
        WorkflowError: Snakemake cannot be asked, or refuses.
    """
    ask = partial(
        planned_commands,
        targets,
        experiment=experiment.name,
        overrides=overrides,
        checkout=checkout,
    )
    jobs = parse_jobs(ask(everything=True), ask())
    here, there = read_history(checkout / "results"), reference()
    estimator = Estimator(here, there)
    world = _world(experiment)
    physics = Physics(experiment, device)
    estimates = [_estimate(job, world, estimator, physics) for job in jobs]
    seconds = [
        one.seconds if job.pending else 0.0 for job, one in zip(jobs, estimates, strict=True)
    ]
    before = predecessors(jobs)
    return Plan(
        stages=_by_stage(jobs, estimates, _memory(jobs, here, there, physics)),
        workers=workers,
        seconds=makespan(seconds, before, workers),
        critical=max(critical_path(seconds, before), default=0.0),
        speed=estimator.speed,
        demands=physics.demands(
            jobs, {index: one for index, one in enumerate(seconds) if jobs[index].pending}
        ),
    )


def _estimate(job: Job, world: World, estimator: Estimator, physics: Physics) -> Estimate:
    work = _work(job, world)
    if not physics.is_real(job):
        return estimator.estimate(work)
    cost = physics.taken(job)
    return estimator.estimate_real(work, cost.seconds if cost else None)


def _world(experiment: Experiment) -> World:
    models = experiment.teachers | experiment.students
    splits = {name: dataset.splits for name, dataset in experiment.datasets.items()}
    return World(
        kinds={name: model_kind(model.model_dump(mode="json")) for name, model in models.items()},
        splits={name: sizes.model_dump() for name, sizes in splits.items() if sizes is not None},
    )


def _work(job: Job, world: World) -> Work:
    place = PurePath(*PurePath(job.out).parts[2:]).as_posix()  # below results/<experiment>
    return work_of(job.stage, job.spec, place, world)


def _memory(
    jobs: Sequence[Job], here: Sequence[Measured], there: Sequence[Measured], physics: Physics
) -> dict[str, float]:
    """Megabytes of each stage's largest job: measured here, or else on the reference machine."""
    found: dict[str, float] = {}
    for measured in (there, here):
        stages = {one.work.stage for one in measured if one.memory}
        for stage in stages:
            found[stage] = max(one.memory for one in measured if one.work.stage == stage)
    for job in jobs:
        found[job.stage] = max(found.get(job.stage, 0.0), physics.host_megabytes(job))
    return found


def _by_stage(
    jobs: Sequence[Job], estimates: Sequence[Estimate], memory: Mapping[str, float]
) -> list[StagePlan]:
    seconds: dict[str, list[float]] = {}
    for job, one in zip(jobs, estimates, strict=True):
        seconds.setdefault(job.stage, []).append(one.seconds)
    unknown = {
        job.stage for job, one in zip(jobs, estimates, strict=True) if one.origin == "unknown"
    }
    asked = limits(seconds, memory)
    found = []
    for stage in sorted({job.stage for job in jobs}, key=ORDER.index):
        own = [(job, one) for job, one in zip(jobs, estimates, strict=True) if job.stage == stage]
        pending = [one for job, one in own if job.pending]
        found.append(
            StagePlan(
                stage=stage,
                jobs=len(own),
                cached=len(own) - len(pending),
                seconds=sum(one.seconds for one in pending),
                origins=dict(Counter(one.origin for one in pending)),
                limit=None if stage in unknown else asked[stage],
            )
        )
    return found
