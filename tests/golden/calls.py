"""What a golden case is made of, and the call of ours that must give the same."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from kd.losses import TeacherLogits, distillation_loss

IGNORED = -100

Hyper = dict[str, Any]


class Unsupported(Exception):
    """A function, or a range of its hyper-parameters, that is not ours to offer: the reason.

    Never raised for what the tensors of a case happen to be.
    """


@dataclass
class Call:
    """A call of ours that must give what the other system gave."""

    name: str
    student_logits: Tensor
    teacher_logits: Tensor | TeacherLogits
    student_labels: Tensor
    teacher_labels: Tensor | None
    settings: dict[str, Any] = field(default_factory=dict)
    scale: float = 1.0
    offset: Tensor | float = 0.0  # constant in the student, such as the teacher's entropy

    def value(self) -> Tensor:
        value = distillation_loss(
            self.name,
            self.student_logits,
            self.teacher_logits,
            self.student_labels,
            self.teacher_labels,
            **self.settings,
        )
        return self.scale * value + self.offset


@dataclass(frozen=True)
class Inputs:
    """The tensors of a case, by their names in the file."""

    tensors: dict[str, Tensor]

    def __getitem__(self, name: str) -> Tensor:
        return self.tensors[name]

    def labels(self, side: str) -> Tensor:
        """Labels of one side, or the common ones; every position where there are none."""
        for name in (f"{side}_labels", "labels"):
            if name in self.tensors:
                return self.tensors[name]
        return self.everywhere(side)

    def everywhere(self, side: str) -> Tensor:
        """Labels that score every position."""
        return torch.zeros(self[f"{side}_logits"].shape[:2], dtype=torch.int64)

    def padding(self) -> Tensor:
        """Which columns [V] are -inf on both sides in all rows; of one vocabulary only."""
        student, teacher = self["student_logits"], self["teacher_logits"]
        if student.shape[-1] != teacher.shape[-1]:
            return torch.zeros(student.shape[-1], dtype=torch.bool)
        return ((student == -torch.inf) & (teacher == -torch.inf)).flatten(0, 1).all(0)

    def without(self, columns: Tensor) -> "Inputs":
        """The same case without these columns of the logits; labels count the others."""
        kept = {
            name: values[..., ~columns]
            for name, values in self.tensors.items()
            if name.endswith("_logits")
        }
        numbers = (~columns).long().cumsum(0) - 1
        for name, values in self.tensors.items():
            if name.endswith("labels"):
                assert not columns[values[values != IGNORED]].any(), "a label that pads"
                kept[name] = numbers[values.clamp(min=0)].where(values != IGNORED, IGNORED)
        return Inputs(self.tensors | kept)

    def call(self, name: str, **settings: Any) -> Call:
        return Call(
            name,
            self["student_logits"],
            self["teacher_logits"],
            self.labels("student"),
            self.labels("teacher"),
            settings,
        )


Source = Callable[[Inputs, Hyper], Call]
SOURCES: dict[tuple[str, str], Source] = {}


def source(*functions: tuple[str, str]) -> Callable[[Source], Source]:
    """Register how (repository, function) translates into a call of ours."""

    def register(translate: Source) -> Source:
        SOURCES.update(dict.fromkeys(functions, translate))
        return translate

    return register


Identity = Callable[["Inputs", Hyper, Tensor, Tensor], bool]
"""Whether (inputs, hyper, value, gradient) satisfy what the mathematics demands."""


@dataclass(frozen=True)
class Defect:
    """Where another system is wrong, and how that is known.

    `holds` is an identity from first principles. It must be true of our value and gradient
    and false of theirs: a disagreement alone would not say who is right.
    """

    reason: str
    holds: Identity
    applies: Callable[["Inputs", Hyper], bool] = lambda inputs, hyper: True


DEFECTS: dict[tuple[str, str], list[Defect]] = {}


def defect(*functions: tuple[str, str], entry: Defect) -> None:
    """Declare that (repository, function) is wrong wherever `entry.applies`."""
    for function in functions:
        DEFECTS.setdefault(function, []).append(entry)


Restatement = Callable[["Inputs", Hyper], Tensor | None]
"""Their value with all of their declared faults; None where what they do is not known."""

RESTATEMENTS: dict[tuple[str, str], Restatement] = {}


def restated(*functions: tuple[str, str]) -> Callable[[Restatement], Restatement]:
    """Register what a function with defects computes: then nothing else can differ unseen.

    Its value and gradient must be theirs in every case to which a defect applies.
    """

    def register(restate: Restatement) -> Restatement:
        RESTATEMENTS.update(dict.fromkeys(functions, restate))
        return restate

    return register


def tensor(values: Any, dtype: torch.dtype) -> Tensor:
    """Nested lists, in which '-inf', 'inf' and 'nan' are strings, as a tensor."""

    def number(value: Any) -> Any:
        return [number(item) for item in value] if isinstance(value, list) else float(value)

    # Neither a decimal point nor an 'inf' or 'nan'.
    integral = not isinstance(values, str) and not set(".n") & set(json.dumps(values))
    return torch.tensor(number(values), dtype=torch.int64 if integral else dtype)
