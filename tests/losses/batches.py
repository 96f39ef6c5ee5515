"""Random batches for the tests of losses, in float64 and from explicit seeds."""

from dataclasses import dataclass, field, is_dataclass, replace
from typing import Any

import torch
from torch import Tensor

from kd.logits import collate, keep_top_k
from kd.losses import Extras, Setup, TeacherLogits, distillation_loss, loss_info, ot
from kd.losses.features import Features, ModelFeatures
from kd.losses.setup import Embeddings, Models, ModelSide, Vocabularies
from kd.losses.spans import SpanLogProbs, Spans
from kd.losses.teacher import Teacher

IGNORED = -100

# Losses that take a part of themselves as a constant: their gradient is not that of their
# value, so no finite difference can check it. They have tests of it of their own.
STOPPED_GRADIENT = {"adaptive_kl", "taid"}


@dataclass(frozen=True)
class Batch:
    """Arguments of `distillation_loss` after the name."""

    student_logits: Tensor
    teacher_logits: Tensor | TeacherLogits
    student_labels: Tensor
    teacher_labels: Tensor | None
    extras: Extras = field(default_factory=Extras)
    setup: Setup = field(default_factory=Setup)

    @property
    def dense(self) -> Tensor:
        """The teacher's logits, where they are dense."""
        assert isinstance(self.teacher_logits, Tensor)
        return self.teacher_logits

    @property
    def tensors(self) -> tuple[Any, ...]:
        """The positional arguments of a loaded loss."""
        return self.student_logits, self.teacher_logits, self.student_labels, self.teacher_labels

    def loss(self, name: str, **settings: Any) -> Tensor:
        return distillation_loss(
            name, *self.tensors, extras=self.extras, setup=self.setup, **settings
        )

    def gradient(self, name: str, **settings: Any) -> Tensor:
        """Gradient of the loss with respect to the student's logits."""
        logits = self.student_logits.detach().clone().requires_grad_()
        replace(self, student_logits=logits).loss(name, **settings).backward()
        assert logits.grad is not None
        return logits.grad

    def sequence(self, b: int) -> "Batch":
        """The batch of its sequence `b` alone."""
        assert self.teacher_labels is not None
        return replace(
            self,
            student_logits=self.student_logits[b : b + 1],
            teacher_logits=self.dense[b : b + 1],
            student_labels=self.student_labels[b : b + 1],
            teacher_labels=self.teacher_labels[b : b + 1],
            extras=_one(self.extras, b),
        )


def _one(value: Any, b: int) -> Any:
    """The part that concerns sequence `b` of tensors in (nested) dataclasses and tuples."""
    if torch.is_tensor(value):
        return value[b : b + 1]
    if isinstance(value, tuple):
        return tuple(_one(item, b) for item in value)
    if is_dataclass(value) and not isinstance(value, type):
        return replace(value, **{key: _one(item, b) for key, item in vars(value).items()})
    return value


def labels(prompts: list[int], answers: list[int], length: int, vocabulary: int) -> Tensor:
    """Labels [B, length]: a masked prompt, an answer of random tokens, masked padding."""
    rows = torch.full((len(prompts), length), IGNORED)
    for row, prompt, answer in zip(rows, prompts, answers, strict=True):
        row[prompt : prompt + answer] = torch.randint(vocabulary, (answer,))
    return rows


# Both texts have 9 bytes in the first sequence and 7 in the second. Spans that end together, as
# numbers of tokens: [1 | 1], [1 | 2], [1 | 1] in the first and [2 | 1], [2 | 1] in the second.
STUDENT_ENDS = [[3, 7, 9], [2, 5, 6, 7]]
TEACHER_ENDS = [[3, 5, 7, 9], [5, 7]]


def cross_tokenizer(seed: int = 0) -> Batch:
    """Two sequences; 7 against 9 tokens of vocabulary; answers of 3 and 4 against 4 and 2."""
    torch.manual_seed(seed)
    batch = Batch(
        2 * torch.randn(2, 8, 7, dtype=torch.float64),
        2 * torch.randn(2, 9, 9, dtype=torch.float64),
        labels([2, 3], [3, 4], 8, 7),
        labels([4, 2], [4, 2], 9, 9),
    )
    return completed(batch, STUDENT_ENDS, TEACHER_ENDS)


def same_tokenizer(seed: int = 0) -> Batch:
    """Two sequences with answers of 3 and 4 tokens; student and teacher share 7 tokens."""
    torch.manual_seed(seed)
    target = labels([2, 3], [3, 4], 8, 7)
    student, teacher = 2 * torch.randn(2, 2, 8, 7, dtype=torch.float64)
    return completed(Batch(student, teacher, target, target), STUDENT_ENDS, STUDENT_ENDS)


def completed(batch: Batch, student_ends: list[list[int]], teacher_ends: list[list[int]]) -> Batch:
    """The batch with all that any loss may ask for beside logits and labels."""
    assert batch.teacher_labels is not None
    sides = (batch.student_logits, batch.dense)
    extras = Extras(
        student_ends=at_labels(batch.student_labels, student_ends),
        teacher_ends=at_labels(batch.teacher_labels, teacher_ends),
        student_responses=torch.tensor([False, True]),
        features=Features(random_features(sides[0], 6), random_features(sides[1], 4)),
    )
    words = ["a", "b", " a", " b", "ab", "é", None, " ab", "ba"]
    setup = Setup(
        vocabularies=Vocabularies(*(words[: side.shape[-1]] for side in sides)),
        embeddings=Embeddings(*(torch.randn(side.shape[-1], 3).double() for side in sides)),
        models=Models(random_model(sides[0], 6), random_model(sides[1], 4)),
        total_steps=10,
    )
    return replace(batch, extras=extras, setup=setup)


def at_labels(target: Tensor, ends: list[list[int]]) -> Tensor:
    """The ends of the answer tokens, at the places of their labels."""
    found = torch.zeros_like(target)
    found[target != IGNORED] = torch.tensor([end for row in ends for end in row])
    return found


def random_features(logits: Tensor, size: int) -> ModelFeatures:
    """Three layers of hidden states and two of causal attention with two heads."""
    rows, length, _ = logits.shape
    causal = torch.ones(length, length).triu(1).bool()
    scores = torch.randn(2, rows, 2, length, length).double().masked_fill(causal, -torch.inf)
    hidden = torch.randn(3, rows, length, size).double()
    return ModelFeatures(hidden=tuple(hidden), attentions=tuple(scores.softmax(-1)))


def random_model(logits: Tensor, size: int) -> ModelSide:
    """Two layers, two heads and a random output layer."""
    return ModelSide((size,) * 3, output=torch.randn(logits.shape[-1], size).double())


def batch_for(name: str, seed: int = 0) -> Batch:
    """A batch on which the loss `name` is defined."""
    return same_tokenizer(seed) if loss_info(name).same_vocabulary else cross_tokenizer(seed)


def stored(batch: Batch, epsilon: float, cap: int | None = None) -> Batch:
    """The same batch with the teacher's logits as they come out of a store, in float64."""
    target = batch.teacher_labels
    assert target is not None
    rows = []
    for b, row in enumerate(target):
        (positions,) = (row != IGNORED).nonzero(as_tuple=True)
        answer = batch.dense[b, positions - 1]
        ends = batch.extras.teacher_ends
        assert ends is not None
        rows.append(
            keep_top_k(
                str(b),
                row[positions],
                answer,
                ends=ends[b, positions],
                epsilon=epsilon,
                cap=cap,
            )
        )
    return replace(batch, teacher_logits=collate(rows), teacher_labels=None)


def single_tokens(rows: int) -> Spans:
    """The spans of `rows` single tokens, whose log-probabilities nobody needs."""

    def unread(chosen: Tensor) -> Tensor:
        raise AssertionError("the chain rule of a single token has no factor")

    nothing = torch.zeros(rows, dtype=torch.int64)
    side = SpanLogProbs(unread, first=nothing, further=nothing, dtype=torch.float64)
    return Spans(side, side)


def uld(student: Tensor, teacher: Teacher) -> Tensor:
    """The loss `uld` on single tokens."""
    return ot.uld(student, teacher, single_tokens(len(student)))
