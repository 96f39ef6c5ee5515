"""The device: sizes for it, its own limits, and how times and memory are taken on it."""

import gc
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import torch

T = TypeVar("T")


@dataclass(frozen=True)
class Sizes:
    """Of models, rows and losses."""

    teacher: dict[str, int]  # of a Llama
    student: dict[str, int]  # of a GPT-NeoX
    teacher_vocabulary: int
    student_vocabulary: int
    prompt: int
    answer: int
    batch: int
    generated: int  # prompts at a time
    steps: int
    rows: int  # that a loss is given
    vocabularies: tuple[tuple[int, int], ...]  # student, teacher
    copied: int  # MiB
    product: int  # side of the matrices
    repeats: int
    datasets: int


FULL = Sizes(
    teacher={
        "hidden_size": 4096,
        "intermediate_size": 11008,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
    },
    student={
        "hidden_size": 1024,
        "intermediate_size": 4096,
        "num_hidden_layers": 24,
        "num_attention_heads": 16,
    },
    teacher_vocabulary=32_000,
    student_vocabulary=50_304,
    prompt=512,
    answer=64,
    batch=8,
    generated=32,
    steps=8,
    rows=512,
    vocabularies=((32_000, 32_000), (50_304, 32_000), (250_112, 32_000)),
    copied=1024,
    product=8192,
    repeats=5,
    datasets=5,
)
TINY = Sizes(
    teacher={
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
    },
    student={
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
    },
    teacher_vocabulary=300,
    student_vocabulary=500,
    prompt=16,
    answer=8,
    batch=4,
    generated=4,
    steps=3,
    rows=32,
    vocabularies=((300, 300), (500, 300)),
    copied=8,
    product=256,
    repeats=2,
    datasets=1,
)


@dataclass(frozen=True)
class Figure:
    """One measured value, and where it applies the best that the device's limits allow."""

    part: str
    case: str
    what: str
    value: float
    unit: str
    limit: float | None = None
    note: str = ""

    def __str__(self) -> str:
        limit = "" if self.limit is None else f"  limit {self.limit:.4g}"
        note = f"  ({self.note})" if self.note else ""
        value = f"{self.value:10.4g} {self.unit}{limit}{note}"
        return f"{self.part:8} {self.case:42} {self.what:24} {value}"


@dataclass(frozen=True)
class Limits:
    """What the device really does: bytes a second copied, and operations a second."""

    bandwidth: float
    flops: float


class Machine:
    """A device with sizes, and a stopwatch that waits for it."""

    def __init__(self, device: torch.device, sizes: Sizes) -> None:
        self.device = device
        self.sizes = sizes
        self.on_gpu = device.type == "cuda"
        self.name = torch.cuda.get_device_name(device) if self.on_gpu else "CPU"
        self.dtype = torch.bfloat16 if self.on_gpu else torch.float32

    def wait(self) -> None:
        if self.on_gpu:
            torch.cuda.synchronize(self.device)

    def seconds(self, call: Callable[[], object], repeats: int | None = None) -> float:
        """The best of some runs, after one that does not count."""
        call()
        best = float("inf")
        for _ in range(repeats or self.sizes.repeats):
            self.wait()
            started = time.perf_counter()
            call()
            self.wait()
            best = min(best, time.perf_counter() - started)
        return best

    def free(self) -> None:
        gc.collect()
        if self.on_gpu:
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(self.device)

    def peak(self) -> float:
        """Largest memory since `free`, GiB; 0 on a CPU, whose processes do not tell."""
        return torch.cuda.max_memory_allocated(self.device) / 2**30 if self.on_gpu else 0.0

    def fitting(self, run: Callable[[int], T], size: int) -> tuple[T, int, str]:
        """What `run` gives with `size`, or half of it, or half of that, as memory allows."""
        note = ""
        while True:
            try:
                self.free()
                return run(size), size, note
            except torch.OutOfMemoryError:
                if size == 1:
                    raise
                size //= 2
            # Only here has the failed run let go of its tensors.
            note = f"{size} at a time, more did not fit"


def measure_limits(machine: Machine) -> Limits:
    """Bandwidth of a copy and speed of a large matrix product."""
    sizes = machine.sizes
    source = torch.zeros(sizes.copied << 18, device=machine.device)  # float32: 4 bytes each
    target = torch.empty_like(source)
    copied = machine.seconds(lambda: target.copy_(source))
    side = sizes.product
    factor = torch.randn(side, side, device=machine.device, dtype=machine.dtype)
    multiplied = machine.seconds(lambda: factor @ factor)
    found = Limits(2 * source.numel() * 4 / copied, 2 * side**3 / multiplied)
    return found
