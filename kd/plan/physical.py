"""What a real model's job takes by arithmetic and memory traffic, where nobody has measured it.

A forward pass costs two operations a parameter and token, a backward pass twice that; generating
a token reads all weights once a batch (Kaplan et al. 2020, appendix B; Pope et al. 2023). Kernels
reach a share of a GPU's limits, not the limits. Good to a factor of two: enough to tell an
afternoon from a month, and replaced by measurements as soon as there are some.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from kd.experiment.models import Scale
from kd.plan.devices import Device

# Shares of the limits, and seconds to start and to read weights from disk: assumptions.
COMPUTE, TRAFFIC = 0.4, 0.6
START, DISK = 20.0, 1e9
# Mean tokens of a row's question and of its answer by task: characters of real rows of the five
# datasets (400 of each), divided by four.
TOKENS = {
    "qa": (225, 6),
    "qa_titled": (180, 8),
    "qa_generative": (270, 9),
    "qa_medical": (360, 67),
    "summary_dialogue": (190, 32),
}
# Bytes that the store keeps of a position: 50 tokens of 4 bytes and its own entries. Such a mean
# belongs to epsilon 1e-3 and moderately sharp teachers (docs/logit-store.md).
KEPT = 214
HALF, SINGLE = 2, 4  # bytes of a number


@dataclass(frozen=True)
class Subject:
    """What a job works on: a real model and a dataset's rows.

    Attributes:
        scale: size of the model.
        half: whether it computes in bfloat16; otherwise in float32.
        task: of the dataset.
        rows: of each split.
        shots: examples in each prompt.
    """

    scale: Scale
    half: bool
    task: str
    rows: Mapping[str, int]
    shots: int = 0

    @property
    def prompt(self) -> int:
        """Mean tokens of a prompt."""
        question, answer = TOKENS[self.task]
        return question + self.shots * (question + answer)

    @property
    def answer(self) -> int:
        """Mean tokens of an answer."""
        return TOKENS[self.task][1]

    @property
    def learned(self) -> int:
        """Rows that the teacher answers."""
        return self.rows.get("train", 0) + self.rows.get("validation", 0)

    @property
    def bytes(self) -> float:
        """Of the weights."""
        return self.scale.parameters * (HALF if self.half else SINGLE)


@dataclass(frozen=True)
class Taken:
    """What a job takes: seconds of one GPU, and bytes that stay on disk."""

    seconds: float
    bytes: float = 0.0


def taken(stage: str, spec: Mapping[str, Any], subject: Subject, device: Device) -> Taken | None:
    """What a job of `stage` takes; None for stages that need no GPU."""
    match stage:
        case "answer":
            return Taken(_generation(spec, subject, subject.learned, device))
        case "predict":
            return Taken(_generation(spec, subject, subject.rows.get("test", 0), device))
        case "extract":
            positions = subject.learned * subject.answer
            tokens = subject.learned * (subject.prompt + subject.answer)
            seconds = _start(subject) + _forward(subject, tokens, device)
            return Taken(seconds, positions * KEPT)
        case "distill":
            return _distillation(spec, subject, device)
    return None


def dense_bytes(subject: Subject) -> float:
    """What whole distributions in float16 would take, as rivals cache them."""
    return float(subject.learned * subject.answer * subject.scale.vocabulary * HALF)


def _start(subject: Subject) -> float:
    return START + subject.bytes / DISK


def _forward(subject: Subject, tokens: float, device: Device) -> float:
    peak = device.half if subject.half else device.single
    return 2 * subject.scale.parameters * tokens / (COMPUTE * peak)


def _generation(spec: Mapping[str, Any], subject: Subject, rows: int, device: Device) -> float:
    batch = int(spec["generation"]["batch_size"])
    reads = rows * subject.answer / batch * subject.bytes / (TRAFFIC * device.bandwidth)
    tokens = rows * (subject.prompt + subject.answer)
    return _start(subject) + _forward(subject, tokens, device) + reads


def _distillation(spec: Mapping[str, Any], subject: Subject, device: Device) -> Taken:
    training = spec["training"]
    length = subject.prompt + subject.answer
    trained = subject.rows.get("train", 0) * spec["fraction"] / 100 * training["epochs"]
    validated = subject.rows.get("validation", 0) * training["validations"]
    seconds = _forward(subject, (3 * trained + validated) * length, device)
    return Taken(_start(subject) + seconds, SINGLE * subject.scale.parameters)
