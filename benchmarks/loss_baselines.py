"""What the losses are measured against. None of it is imported by the package."""

import importlib
import warnings
from collections.abc import Callable
from types import SimpleNamespace

import torch
from torch import Tensor

from kd.losses import TeacherLogits, loss_info
from kd.losses.spans import SpanLogProbs, Spans
from kd.losses.teacher import Teacher


def authors(student: Tensor, teacher: Tensor, start: int, length: int) -> Tensor:
    """ULD as its authors' code does it, restated from a description of it.

    Each sample's answer is moved to the front of its logits, in place; so is its softmax. Both
    sides are sorted with their indices, and the mean over samples of each one's mean is taken.
    """
    for side in (student, teacher):
        for b in range(len(side)):
            answer = side[b, start : start + length]
            rest = torch.zeros_like(side[b, length:])
            side[b] = torch.cat([answer, rest])
            side[b, :length] = side[b, :length].softmax(dim=-1)
    ordered = [side[:, :length].sort(dim=-1, descending=True).values for side in (student, teacher)]
    width = max(side.shape[-1] for side in ordered)
    q, p = (torch.nn.functional.pad(side, (0, width - side.shape[-1])) for side in ordered)
    samples = [(p[b] - q[b]).abs().sum(dim=-1).mean() for b in range(len(p))]
    return torch.stack(samples).mean()


def gold() -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """TRL's GOLD loss on logits and labels, shifted, without spans; cross-entropy left out.

    Raises:
        ImportError: TRL is not installed.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from trl.experimental.gold.gold_trainer import ULDLoss  # type: ignore[import-untyped]
    loss = ULDLoss(
        SimpleNamespace(
            uld_crossentropy_weight=0.0,
            uld_distillation_weight=1.0,
            uld_student_temperature=1.0,
            uld_teacher_temperature=1.0,
            uld_skip_student_eos=False,
            uld_skip_teacher_eos=False,
            use_extended_uld=False,
            uld_token_merge_strategy="bayesian",
            uld_use_hybrid_loss=False,
        )
    )

    def call(student: Tensor, teacher: Tensor, labels: Tensor) -> Tensor:
        return loss(student, teacher, labels, labels, labels, labels)

    return call


def plain(name: str, student: Tensor, teacher: Tensor | TeacherLogits, labels: Tensor) -> Tensor:
    """The plain function of a loss of ours on all answer rows at once, by autograd."""
    info = loss_info(name)
    body = getattr(importlib.import_module(info.module), info.function)
    sequence, position = (labels[:, 1:] != -100).nonzero(as_tuple=True)
    rows = student[sequence, position]
    given: Teacher
    if isinstance(teacher, TeacherLogits):
        given = teacher.all_rows().cast(student.dtype)
    else:
        given = teacher[sequence, position].to(student.dtype)
    spans = (single_tokens(len(rows)),) if "spans" in info.needs else ()
    return body(rows, given, *spans).mean()


def single_tokens(rows: int) -> Spans:
    """Spans of single tokens."""
    nothing = torch.zeros(rows, dtype=torch.int64)
    side = SpanLogProbs(lambda chosen: chosen, nothing, nothing, torch.float32)
    return Spans(side, side)
