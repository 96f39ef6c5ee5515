"""Distillation losses: one convention, one function, one module per family.

    from kd.losses import available_losses, distillation_loss

    loss = distillation_loss("uld", student_logits, teacher_logits, student_labels, teacher_labels)

Where things are: `declaration`, `needs` and `catalogue` say what a loss is and which there are;
`distillation`, `conventions`, `answers`, `rows`, `spans`, `features`, `teacher` and `chunked` turn
a batch into what a loss asks for, and its values into one; `probabilities`, `options`, `setup`
and `documentation` are shared. Every other module is a family of losses, or what one needs.

Importing this package does not import torch: the catalogue is read from source text, and
everything that computes is imported when it is first asked for.
"""

import importlib
from typing import TYPE_CHECKING, Any

from kd.losses.catalogue import LossInfo, available_losses, loss_info

if TYPE_CHECKING:
    from kd.losses.distillation import (
        Conventions,
        DistillationLoss,
        Extras,
        Setup,
        distillation_loss,
        load_loss,
    )
    from kd.losses.teacher import TeacherLogits

__all__ = [
    "Conventions",
    "DistillationLoss",
    "Extras",
    "LossInfo",
    "Setup",
    "TeacherLogits",
    "available_losses",
    "distillation_loss",
    "load_loss",
    "loss_info",
]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'kd.losses' has no attribute '{name}'")
    return getattr(importlib.import_module("kd.losses.distillation"), name)
