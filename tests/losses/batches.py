"""Random batches for the tests of losses, in float64 and from explicit seeds."""

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from kd.logits import collate, keep_top_k
from kd.losses import TeacherLogits, distillation_loss

IGNORED = -100


@dataclass(frozen=True)
class Batch:
    """Arguments of `distillation_loss` after the name."""

    student_logits: Tensor
    teacher_logits: Tensor | TeacherLogits
    student_labels: Tensor
    teacher_labels: Tensor | None

    @property
    def dense(self) -> Tensor:
        """The teacher's logits, where they are dense."""
        assert isinstance(self.teacher_logits, Tensor)
        return self.teacher_logits

    def loss(self, name: str, **settings: Any) -> Tensor:
        return distillation_loss(
            name,
            self.student_logits,
            self.teacher_logits,
            self.student_labels,
            self.teacher_labels,
            **settings,
        )

    def gradient(self, name: str, **settings: Any) -> Tensor:
        """Gradient of the loss with respect to the student's logits."""
        logits = self.student_logits.detach().clone().requires_grad_()
        replace(self, student_logits=logits).loss(name, **settings).backward()
        assert logits.grad is not None
        return logits.grad


def labels(prompts: list[int], answers: list[int], length: int, vocabulary: int) -> Tensor:
    """Labels [B, length]: a masked prompt, an answer of random tokens, masked padding."""
    rows = torch.full((len(prompts), length), IGNORED)
    for row, prompt, answer in zip(rows, prompts, answers, strict=True):
        row[prompt : prompt + answer] = torch.randint(vocabulary, (answer,))
    return rows


def cross_tokenizer(seed: int = 0) -> Batch:
    """Two sequences; 7 against 9 tokens of vocabulary; answers of 3 and 4 against 4 and 2."""
    torch.manual_seed(seed)
    return Batch(
        2 * torch.randn(2, 8, 7, dtype=torch.float64),
        2 * torch.randn(2, 9, 9, dtype=torch.float64),
        labels([2, 3], [3, 4], 8, 7),
        labels([4, 2], [4, 2], 9, 9),
    )


def same_tokenizer(seed: int = 0) -> Batch:
    """Two sequences with answers of 3 and 4 tokens; student and teacher share 7 tokens."""
    torch.manual_seed(seed)
    target = labels([2, 3], [3, 4], 8, 7)
    student, teacher = 2 * torch.randn(2, 2, 8, 7, dtype=torch.float64)
    return Batch(student, teacher, target, target)


def batch_for(name: str, seed: int = 0) -> Batch:
    """A batch on which the loss `name` is defined."""
    return same_tokenizer(seed) if name == "forward_kl" else cross_tokenizer(seed)


def stored(batch: Batch, epsilon: float, cap: int | None = None) -> Batch:
    """The same batch with the teacher's logits as they come out of a store, in float64."""
    target = batch.teacher_labels
    assert target is not None
    rows = []
    for b, row in enumerate(target):
        (positions,) = (row != IGNORED).nonzero(as_tuple=True)
        answer = batch.dense[b, positions - 1]
        rows.append(keep_top_k(str(b), row[positions], answer, epsilon=epsilon, cap=cap))
    return replace(batch, teacher_logits=collate(rows), teacher_labels=None)
