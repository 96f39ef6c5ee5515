"""What a real model's job takes by arithmetic and memory traffic, where nobody has measured it.

A forward pass costs two operations a parameter and token, a backward pass twice that; generating
a token reads all weights once a batch (Kaplan et al. 2020, appendix B; Pope et al. 2023). Kernels
reach a share of a GPU's limits, not the limits. Good to a factor of two: enough to tell an
afternoon from a month, and replaced by measurements as soon as there are some.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from kd.experiment.logits import EPSILON
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
# What the store keeps of a position: the tokens of a moderately sharp teacher by what may be
# dropped (logits from N(0, 9^2), 32,000 tokens; docs/logit-store.md has 1e-3), bytes of each,
# of each in full precision, and of the position itself.
KEPT_TOKENS = ((1e-2, 16), (1e-3, 50), (1e-4, 148), (0.0, 366))
KEPT, KEPT_FULL, POSITION = 4, 6, 11
HALF, SINGLE = 2, 4  # bytes of a number
WEIGHT_BYTES = {"8bit": 1.0, "4bit": 0.55}  # with the scales of their blocks


@dataclass(frozen=True)
class Subject:
    """What a job works on: a real model and a dataset's rows.

    Attributes:
        scale: size of the model.
        half: whether it computes in 16 bits; otherwise in float32.
        weight: bytes of one of its weights in memory.
        task: of the dataset.
        rows: of each split.
        shots: examples in each prompt.
    """

    scale: Scale
    half: bool
    task: str
    rows: Mapping[str, int]
    shots: int = 0
    weight: float = SINGLE

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
        """Of the weights, in memory."""
        return self.scale.parameters * self.weight


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
            return Taken(seconds, positions * kept_bytes(spec.get("logits", {}), subject.scale))
        case "distill":
            return _distillation(spec, subject, device)
    return None


def sampling_seconds(
    subject: Subject, rows: float, longest: int, batch: int, device: Device
) -> float:
    """What a student takes to sample an answer of at most `longest` tokens to each of `rows`.

    It does so `batch` rows at a time while it is trained, so nothing is read from disk.
    """
    answer = min(subject.answer, longest)
    reads = rows * answer / batch * subject.bytes / (TRAFFIC * device.bandwidth)
    return _forward(subject, rows * (subject.prompt + answer), device) + reads


def kept_bytes(logits: Mapping[str, Any], scale: Scale) -> float:
    """Bytes that the store keeps of a position, with such `logits` of an experiment."""
    drawn = logits.get("sampling")
    epsilon = float(logits.get("epsilon", EPSILON))
    full = logits.get("precision") == "full" or (epsilon == 0 and not drawn)
    each = KEPT_FULL if full else KEPT
    if drawn:
        count = float(drawn["draws"])
    elif epsilon == 0:
        count = float(scale.vocabulary)
    else:
        count = float(next(kept for mass, kept in KEPT_TOKENS if epsilon >= mass))
    count = min(count, logits.get("cap") or count, scale.vocabulary)
    return POSITION + count * (each if logits.get("ids", True) else each - 2)


def dense_bytes(subject: Subject) -> float:
    """What whole distributions in float16 would take, as rivals cache them."""
    return float(subject.learned * subject.answer * subject.scale.vocabulary * HALF)


def _start(subject: Subject) -> float:
    return START + subject.bytes / DISK


def _forward(subject: Subject, tokens: float, device: Device) -> float:
    peak = device.half if subject.half else device.single
    return 2 * subject.scale.parameters * tokens / (COMPUTE * peak)


def _generation(spec: Mapping[str, Any], subject: Subject, rows: int, device: Device) -> float:
    settings = spec["generation"]
    batch = int(settings["batch_size"])
    if settings.get("token_budget"):
        longest = subject.prompt + int(settings["max_new_tokens"])
        batch = max(1, int(settings["token_budget"]) // longest)
    reads = rows * subject.answer / batch * subject.bytes / (TRAFFIC * device.bandwidth)
    tokens = rows * (subject.prompt + subject.answer)
    return _start(subject) + _forward(subject, tokens, device) + reads


def _distillation(spec: Mapping[str, Any], subject: Subject, device: Device) -> Taken:
    training = spec["training"]
    length = subject.prompt + subject.answer
    trained = subject.rows.get("train", 0) * spec["fraction"] / 100 * training["epochs"]
    trained /= training.get("replicas", 1)
    validated = subject.rows.get("validation", 0) * training["validations"]
    seconds = _forward(subject, (3 * trained + validated) * length, device)
    # Adapters that are kept alone are nothing beside the weights that they belong to.
    lora = spec.get("method", {}).get("lora")
    kept = 0 if lora and not lora.get("merge", True) else SINGLE * subject.scale.parameters
    return Taken(_start(subject) + seconds, kept)
