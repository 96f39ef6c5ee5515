"""The workload of `losses.py` and the implementations that run on it."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache, cached_property

import numpy as np
import torch
from loss_baselines import authors, gold, plain
from torch import Tensor

from kd.logits import collate, keep_top_k
from kd.losses import TeacherLogits, distillation_loss

DIVERGENCES = (
    "forward_kl",
    "reverse_kl",
    "symmetric_kl",
    "jensen_shannon",
    "skew_kl",
    "skew_reverse_kl",
    "total_variation",
    "alpha_beta",
    "alpha_divergence",
    "amid",
)
OURS, PLAIN, FLOOR = "ours", "plain autograd", "floor"
AUTHORS, GOLD = "authors' algorithm", "TRL GOLD"


@dataclass(frozen=True)
class Size:
    """Sizes of a workload."""

    batch: int = 4
    length: int = 256
    answer: int = 64
    student: int = 50_000
    teacher: int = 32_000


QUICK = Size(batch=2, length=24, answer=6, student=3_000, teacher=2_000)


class Workload:
    """Logits ~ N(0, 6^2) of student and teacher, as many answer tokens in every sample."""

    def __init__(self, size: Size, teacher_vocabulary: int) -> None:
        generator = torch.Generator().manual_seed(0)
        shape = size.batch, size.length
        self.size = size
        self.student = 6 * torch.randn(*shape, size.student, generator=generator)
        self.dense = 6 * torch.randn(*shape, teacher_vocabulary, generator=generator)
        self.start = size.length // 3
        self.labels = torch.full(shape, -100)
        self.labels[:, self.start + 1 : self.start + 1 + size.answer] = 1

    @cached_property
    def full(self) -> TeacherLogits:
        return self._store(epsilon=0.0)

    @cached_property
    def truncated(self) -> TeacherLogits:
        return self._store(epsilon=1e-3)

    @cached_property
    def top_100(self) -> TeacherLogits:
        return self._store(epsilon=0.0, cap=100)

    def teacher(self, kind: str) -> Tensor | TeacherLogits:
        found: Tensor | TeacherLogits = getattr(self, kind)
        return found

    def _store(self, epsilon: float, cap: int | None = None) -> TeacherLogits:
        tokens = torch.ones(self.size.answer, dtype=torch.int64)
        answers = self.dense[:, self.start : self.start + self.size.answer]
        return collate(
            [
                keep_top_k(str(b), tokens, rows, ends=tokens, epsilon=epsilon, cap=cap)
                for b, rows in enumerate(answers)
            ]
        )


@cache
def workload(size: Size, teacher_vocabulary: int) -> Workload:
    """One workload is shared by all implementations in a process."""
    return Workload(size, teacher_vocabulary)


Call = Callable[[], tuple[float, Tensor]]
"""Forward and backward: the loss and its gradient in the student's logits."""


@dataclass(frozen=True)
class Implementation:
    """One way to evaluate one loss on one kind of teacher."""

    loss: str
    teacher: str  # dense, full, truncated or top_100
    how: str = OURS

    def __str__(self) -> str:
        return f"{self.loss}, {self.teacher}, {self.how}"

    def workload(self, size: Size) -> Workload:
        return workload(size, size.teacher if self.loss == "uld" else size.student)

    def prepare(self, size: Size, dtype: torch.dtype = torch.float32) -> Call:
        """What is measured; copies that it destroys are made before."""
        work = self.workload(size)
        teacher, labels = work.teacher(self.teacher), work.labels
        if self.how == FLOOR:
            return floor(work, work.dense if self.teacher == "dense" else None)
        leaf = work.student.to(dtype, copy=True).requires_grad_()
        if self.how == AUTHORS:
            # Outputs of a model are no leaves, and this algorithm overwrites them.
            outputs, other = leaf * 1.0, work.dense.clone()
            return backward(leaf, lambda: authors(outputs, other, work.start, size.answer))
        if self.how == GOLD:
            loss = gold()
            return backward(leaf, lambda: loss(leaf, work.dense, labels))
        if self.how == PLAIN:
            return backward(leaf, lambda: plain(self.loss, leaf, teacher, labels))
        own = labels if self.teacher == "dense" else None
        return backward(leaf, lambda: distillation_loss(self.loss, leaf, teacher, labels, own))


def backward(leaf: Tensor, forward: Callable[[], Tensor]) -> Call:
    def run() -> tuple[float, Tensor]:
        loss = forward()
        loss.backward()
        assert leaf.grad is not None
        return loss.item(), leaf.grad

    return run


def floor(work: Workload, teacher: Tensor | None) -> Call:
    """Each logit read and its exponential taken once, and one gradient written."""

    def run() -> tuple[float, Tensor]:
        gradient = np.zeros(work.student.shape, np.float32)
        total = 0.0
        answer = range(work.start, work.start + work.size.answer)
        for b in range(work.size.batch):
            for first in answer[::4]:
                rows = slice(first, min(first + 4, answer.stop))
                exponentials = np.exp(work.student[b, rows].numpy())
                total += float(exponentials.sum())
                if teacher is not None:
                    total += float(np.exp(teacher[b, rows].numpy()).sum())
                np.multiply(exponentials, np.float32(0.5), out=gradient[b, rows])
        return total, torch.from_numpy(gradient)

    return run


def implementations(with_gold: bool) -> Iterator[Implementation]:
    yield Implementation("uld", "dense", AUTHORS)
    if with_gold:
        yield Implementation("uld", "dense", GOLD)
    for teacher in ("dense", "full", "truncated", "top_100"):
        yield Implementation("uld", teacher, PLAIN)
        yield Implementation("uld", teacher)
    for loss in DIVERGENCES:
        for teacher in ("dense", "truncated"):
            yield Implementation(loss, teacher, PLAIN)
            yield Implementation(loss, teacher)
    yield Implementation("uld", "full", FLOOR)
    yield Implementation("forward_kl", "dense", FLOOR)
