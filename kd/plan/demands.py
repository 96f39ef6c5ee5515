"""What real models ask for besides time: GPUs, disk, money; and what the logit store saves."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import PurePath
from typing import Any

from kd.experiment.datasets import HubDataset, MicroDataset
from kd.experiment.methods import Method, MixedText, OnPolicy
from kd.experiment.models import MicroModel, Scale
from kd.experiment.requirements import runs_teacher
from kd.experiment.schema import Experiment
from kd.plan.devices import Device
from kd.plan.jobs import Job
from kd.plan.physical import (
    HALF,
    SINGLE,
    WEIGHT_BYTES,
    Subject,
    Taken,
    dense_bytes,
    sampling_seconds,
    taken,
)
from kd.plan.work import subject_of

# A checkpoint holds weights, two moments of AdamW and the best weights so far. Two are kept, and
# the older one is removed once the next is written.
STATE = 4 * SINGLE
CHECKPOINT = 3 * STATE
WITH_MODEL = ("answer", "extract", "distill", "predict")


@dataclass(frozen=True)
class Demands:
    """What the pending jobs with real models ask for.

    Attributes:
        device: the GPU that the estimates are for.
        gpu_seconds: of all of them, one after the other.
        stores: bytes of logit stores.
        students: bytes of distilled students.
        checkpoint: bytes of the largest checkpoints that one running job keeps.
        dense: bytes that whole distributions in float16 would take instead of the stores.
        teacher_seconds: that the teacher would compute if it ran in every step of the
            distillations that read its stored logits.
    """

    device: str
    gpu_seconds: float
    stores: float
    students: float
    checkpoint: float
    dense: float
    teacher_seconds: float


class Physics:
    """Arithmetic's estimate for the jobs of an experiment on a device."""

    def __init__(self, experiment: Experiment, device: Device) -> None:
        """Read what `experiment` says of its models' and datasets' sizes."""
        self._experiment, self.device = experiment, device

    def is_real(self, job: Job) -> bool:
        """Whether the job runs a model that was not made inside the workflow."""
        model = self._model(job)
        return job.stage in WITH_MODEL and model is not None and not isinstance(model, MicroModel)

    def taken(self, job: Job) -> Taken | None:
        """What the job takes; None if it runs no real model, or one of unknown size.

        A distillation that runs its teacher takes the teacher's forward passes, too, and the time
        in which an on-policy method's student samples.
        """
        subject = self._subject(job)
        alone = taken(job.stage, job.spec, subject, self.device) if subject else None
        if alone is None or not self._runs_teacher(job):
            return alone
        more = self._teacher_in_every_step(job) + self._sampling(job, subject)
        return replace(alone, seconds=alone.seconds + more)

    def host_megabytes(self, job: Job) -> float:
        """Main memory that the job's real model may take on its way to the GPU.

        Of a distillation it is what a checkpoint holds, which passes through main memory.
        """
        subject = self._subject(job) if self.is_real(job) else None
        each = STATE if job.stage == "distill" else SINGLE
        return 4000 + subject.scale.parameters * each / 1e6 if subject else 0.0

    def demands(self, jobs: Iterable[Job], seconds: Mapping[int, float]) -> Demands | None:
        """All that the pending ones among `jobs` ask for; None if no real model is used.

        `seconds`: of each pending job, by its position.
        """
        listed = list(jobs)
        pending = [(index, job) for index, job in enumerate(listed) if index in seconds]
        real = [(index, job) for index, job in pending if self.is_real(job)]
        if not real:
            return None
        kept: dict[str, float] = dict.fromkeys(WITH_MODEL, 0.0)
        dense = checkpoint = teacher = 0.0
        for _, job in real:
            subject, cost = self._subject(job), self.taken(job)
            if subject is None or cost is None:
                continue
            kept[job.stage] += cost.bytes
            if job.stage == "extract":
                dense += dense_bytes(subject)
            if job.stage == "distill":
                checkpoint = max(checkpoint, CHECKPOINT * subject.scale.parameters)
                teacher += 0.0 if self._runs_teacher(job) else self._teacher_in_every_step(job)
        return Demands(
            device=self.device.name,
            gpu_seconds=sum(seconds[index] for index, _ in real),
            stores=kept["extract"],
            students=kept["distill"],
            checkpoint=checkpoint,
            dense=dense,
            teacher_seconds=teacher,
        )

    def _runs_teacher(self, job: Job) -> bool:
        """Whether a distillation's method cannot do with stored logits."""
        if job.stage != "distill":
            return False
        return runs_teacher(self._method(job))

    def _method(self, job: Job) -> Method:
        return self._experiment.methods[PurePath(job.out).parts[6]]

    def _sampling(self, job: Job, subject: Subject | None) -> float:
        """Seconds in which a student samples what it learns from, at most."""
        responses, training = self._method(job).responses, job.spec["training"]
        if subject is None or not isinstance(responses, OnPolicy):
            return 0.0
        # How far an adaptive share grows is known in the end only.
        share = responses.student_fraction if isinstance(responses, MixedText) else 1.0
        rows = subject.rows.get("train", 0) * float(job.spec["fraction"]) / 100
        rows *= share * int(training["epochs"]) / int(training.get("replicas", 1))
        batch = self._experiment.training.batch_size
        return sampling_seconds(subject, rows, responses.max_new_tokens, batch, self.device)

    def _teacher_in_every_step(self, job: Job) -> float:
        """Seconds of the teacher's forward passes if a distillation made them itself."""
        if job.spec["method"]["loss"] == "none":
            return 0.0
        teacher = PurePath(job.out).parts[4]  # results/<experiment>/runs/<dataset>/<teacher>/…
        subject = self._of(teacher, job)
        once = taken("extract", {}, subject, self.device) if subject else None
        training = job.spec["training"]
        share = float(job.spec["fraction"]) / 100 / int(training.get("replicas", 1))
        return once.seconds * share * int(training["epochs"]) if once else 0.0

    def _model(self, job: Job) -> Any:
        name, _ = subject_of(_place(job))
        return (self._experiment.teachers | self._experiment.students).get(name)

    def _subject(self, job: Job) -> Subject | None:
        name, _ = subject_of(_place(job))
        return self._of(name, job)

    def _of(self, name: str, job: Job) -> Subject | None:
        _, dataset_name = subject_of(_place(job))
        model = (self._experiment.teachers | self._experiment.students).get(name)
        dataset = self._experiment.datasets.get(dataset_name)
        scale: Scale | None = getattr(model, "scale", None)
        if model is None or dataset is None or scale is None:
            return None
        rows = dataset.splits
        if rows is None and isinstance(dataset, HubDataset):
            rows = dataset.rows
        if rows is None or isinstance(dataset, MicroDataset):
            return None
        half, weight = self._precision(name, job)
        return Subject(
            scale=scale,
            half=half,
            weight=weight,
            task=dataset.task,
            rows=rows.model_dump(),
            # A student learns without examples; a teacher beside it reads its own prompts.
            shots=0 if self._learns(name, job) else model.shots_on(dataset_name),
        )

    def _learns(self, name: str, job: Job) -> bool:
        return job.stage == "distill" and name in self._experiment.students

    def _precision(self, name: str, job: Job) -> tuple[bool, float]:
        """Whether a model of the job computes in 16 bits, and bytes of one of its weights."""
        model = (self._experiment.teachers | self._experiment.students)[name]
        if self._learns(name, job):  # its weights stay float32
            return job.spec["training"].get("precision") == "bfloat16", SINGLE
        load = model.load
        if load is None:
            return False, SINGLE
        plain = SINGLE if load.dtype == "float32" else HALF
        return load.dtype != "float32", WEIGHT_BYTES.get(load.quantisation or "", plain)


def _place(job: Job) -> str:
    return PurePath(*PurePath(job.out).parts[2:]).as_posix()  # below results/<experiment>
