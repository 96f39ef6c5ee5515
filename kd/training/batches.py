"""Batches: which rows meet at which step, and how they become tensors.

The order is a function of (seed, epoch) alone, so that a resumed run meets the same rows.
"""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from math import ceil

import torch
from torch import Tensor

from kd.experiment.schema import Training
from kd.logits.batch import collate
from kd.logits.reader import LogitReader
from kd.losses.teacher import TeacherLogits
from kd.models.encoding import pad_batch
from kd.training.examples import Example

IGNORED = -100


@dataclass(frozen=True)
class Batch:
    """Tensors of one step.

    Attributes:
        inputs: keyword arguments of the student's forward pass.
        labels: [B, T] next-token targets in the Hugging Face convention, EOS included.
        teacher: the teacher's distributions over its own answer tokens, if a loss wants them.
        student_responses: [B], whether the student wrote the answer.
        ends: [B, T], index as `labels`: byte of the answer's text at which each token ends.
        live: the same answers as the teacher reads them, if it runs at this step.
    """

    inputs: dict[str, Tensor]
    labels: Tensor
    teacher: TeacherLogits | None
    student_responses: Tensor
    ends: Tensor
    live: "Batch | None" = None

    def to(self, device: torch.device) -> "Batch":
        """The same batch on `device`."""
        return replace(
            self,
            inputs={name: tensor.to(device) for name, tensor in self.inputs.items()},
            labels=self.labels.to(device),
            teacher=None if self.teacher is None else self.teacher.to(device),
            student_responses=self.student_responses.to(device),
            ends=self.ends.to(device),
            live=None if self.live is None else self.live.to(device),
        )

    def unscored(self) -> "Batch":
        """The same batch without a token to learn from: its objective is 0."""
        live = None if self.live is None else self.live.unscored()
        return replace(self, labels=torch.full_like(self.labels, IGNORED), live=live)

    def scored(self, eos_token_id: int) -> Tensor:
        """Labels of the distillation term: on the teacher's text, all but EOS.

        The teacher's stored tokens end before EOS, so the student's do as well; when to stop is
        learned from the cross-entropy. Text of the student has none, and holds EOS only where
        the student drew it: there the teacher says whether that was right.
        """
        appended = (self.labels == eos_token_id) & ~self.student_responses[:, None]
        return self.labels.masked_fill(appended, IGNORED)


def steps_per_epoch(rows: int, batch_size: int) -> int:
    """Batches of an epoch; the last one may be smaller."""
    return ceil(rows / batch_size)


def total_steps(rows: int, training: Training) -> int:
    """Optimiser steps of a whole run."""
    return training.epochs * steps_per_epoch(rows, training.batch_size)


@lru_cache(maxsize=2)  # every step asks, and shuffling SQuAD's rows takes longer than it may
def epoch_order(rows: int, seed: int, epoch: int) -> tuple[int, ...]:
    """Order of the rows in an epoch: another one in each."""
    order = list(range(rows))
    random.Random(f"order-{seed}-{epoch}").shuffle(order)
    return tuple(order)


def batch_indices(rows: int, batch_size: int, seed: int, step: int) -> list[int]:
    """Rows of the batch at `step`, counted from 0 over all epochs."""
    epoch, position = divmod(step, steps_per_epoch(rows, batch_size))
    order = epoch_order(rows, seed, epoch)
    return list(order[position * batch_size : (position + 1) * batch_size])


def in_order(rows: int, batch_size: int) -> Iterator[list[int]]:
    """Consecutive batches, for validation."""
    for start in range(0, rows, batch_size):
        yield list(range(start, min(start + batch_size, rows)))


class Collator:
    """Pads examples into batches and looks up the teacher's logits of their rows."""

    def __init__(
        self, pad_token_id: int, *, encoder_decoder: bool, store: LogitReader | None
    ) -> None:
        """Batches hold teacher logits where `store` is given."""
        self._pad = pad_token_id
        self._encoder_decoder = encoder_decoder
        self._store = store

    def __call__(self, examples: Sequence[Example]) -> Batch:
        """One batch of `examples`, right-padded."""
        build = self._encoder_decoder_tensors if self._encoder_decoder else self._decoder_tensors
        inputs, labels = build(examples)
        teacher = None
        if self._store is not None:
            teacher = collate([self._store[example.id] for example in examples])
        by_student = torch.tensor([example.by_student for example in examples])
        ends = torch.zeros_like(labels)
        ends[labels != IGNORED] = torch.tensor([end for row in examples for end in row.ends])
        return Batch(inputs, labels, teacher, by_student, ends)

    def _decoder_tensors(self, examples: Sequence[Example]) -> tuple[dict[str, Tensor], Tensor]:
        texts = [example.prompt + example.target for example in examples]
        ids, mask = pad_batch(texts, self._pad)
        labels = torch.full_like(ids, IGNORED)
        for row, example in enumerate(examples):
            start = len(example.prompt)
            labels[row, start : start + len(example.target)] = torch.tensor(example.target)
        return {"input_ids": ids, "attention_mask": mask}, labels

    def _encoder_decoder_tensors(
        self, examples: Sequence[Example]
    ) -> tuple[dict[str, Tensor], Tensor]:
        ids, mask = pad_batch([example.prompt for example in examples], self._pad)
        target, target_mask = pad_batch([example.target for example in examples], self._pad)
        labels = target.masked_fill(target_mask == 0, IGNORED)
        # The model shifts the labels right to feed its decoder; its logits stay aligned with them.
        return {"input_ids": ids, "attention_mask": mask, "labels": labels}, labels
