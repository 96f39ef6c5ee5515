"""Where results lie: one relative path per artifact, used by rules, tables and audits alike."""

from dataclasses import asdict, dataclass
from typing import get_args

from kd.experiment.base import Curve

CURVE = "train.jsonl"  # in a run's folder


@dataclass(frozen=True, order=True)
class Run:
    """One distillation: everything that tells it from another in the same experiment."""

    dataset: str
    teacher: str
    student: str
    method: str
    fraction: int
    seed: int

    @property
    def path(self) -> str:
        """Folder of the run below `results/<experiment>/`."""
        return (
            f"runs/{self.dataset}/{self.teacher}/{self.student}/{self.method}"
            f"/f{self.fraction}/s{self.seed}"
        )

    def axes(self) -> dict[str, str | int]:
        """The run's coordinates by name."""
        return asdict(self)


def teacher_path(teacher: str, dataset: str) -> str:
    """Folder of a teacher's answers, logits and evaluation on `dataset`."""
    return f"teachers/{teacher}/{dataset}"


def logits_path(teacher: str, dataset: str, variant: str) -> str:
    """Folder of a teacher's stored logits: one folder deeper where the variant has a name."""
    folder = teacher_path(teacher, dataset)
    return f"{folder}/logits" if variant == "default" else f"{folder}/{variant}/logits"


def native_path(dataset: str, student: str) -> str:
    """Folder of an undistilled student's evaluation, with shots from `dataset`."""
    return f"native/{dataset}/{student}"


def scores_path(subject: str, test_dataset: str) -> str:
    """Scores of a subject (a run, a teacher, a native student) on a dataset's test split."""
    return f"{subject}/eval/{test_dataset}/scores.json"


def value_path(subject: str, test_dataset: str, metric: str | None) -> str | None:
    """The file that holds a subject's value of `metric` (None: of any score).

    That is its scores, or its training curve; a subject that no run trained has no curve.
    """
    if metric not in get_args(Curve):
        return scores_path(subject, test_dataset)
    return f"{subject}/{CURVE}" if subject.startswith("runs/") else None
