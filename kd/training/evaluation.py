"""The objective of a step's rows, a few of them at a time and over several processes.

However the rows are cut, the result is that of all of them at once: every part is divided by the
number of tokens (or sequences) of the whole, so that parts add up. The mean of the parts' means
would weigh a token by the company it is in.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from kd.experiment.schema import Training
from kd.parallel.ranks import Ranks
from kd.training.batches import Batch
from kd.training.examples import Example
from kd.training.objective import Counts, Objective, Terms


@dataclass(frozen=True)
class Values:
    """What the objective was on the rows of a step, over all ranks."""

    parts: dict[str, float]  # as `Terms.values`
    exactness: dict[str, float]


class Learner(nn.Module):
    """All that is trained, as one module: the student, and the weights of its loss."""

    def __init__(self, model: PreTrainedModel, objective: Objective) -> None:
        super().__init__()
        self.model = model
        self.objective = objective

    def forward(self, batch: Batch, counts: Counts | None, certify: bool) -> Terms:
        """The objective on `batch`; without `counts`, the batch is the whole."""
        return self.objective(self.model, batch, counts, certify=certify)  # type: ignore[no-any-return]


class Evaluator:
    """Evaluates the objective on rows, with a gradient or without."""

    def __init__(
        self,
        model: PreTrainedModel,
        objective: Objective,
        collate: Callable[[Sequence[Example]], Batch],
        training: Training,
        ranks: Ranks,
    ) -> None:
        """Wrap what is trained, so that its gradients are those of all ranks."""
        self._own = Learner(model, objective)
        # A loss without rows to compare does not read its own weights.
        self._wrapped = ranks.wrap(self._own, partly=any(True for _ in objective.parameters()))
        self._collate = collate
        self._micro = training.micro_batch
        self._half = training.precision == "bfloat16"
        self._ranks = ranks
        self.shape = (0, 0)  # rows and longest row, tokens, of what this rank evaluated last

    def learn(
        self,
        examples: Sequence[Example],
        accept: Callable[[Mapping[str, float]], None],
        *,
        certify: bool,
    ) -> Values:
        """Add the gradient of the objective on `examples` to that of the weights.

        Args:
            examples: of the whole step, the same on every rank.
            accept: called with the parts of the objective before any weight could change; it may
                refuse.
            certify: say what stored logits leave open about the loss.
        """
        self._note(self._ranks.share(examples))
        if self._whole:
            terms = self._forward(self._wrapped, self._collate(examples), None, certify)
            accept(terms.values())
            terms.total.backward()  # type: ignore[no-untyped-call]
            return Values(terms.values(), terms.exactness)
        batches, counts, whole = self._parts(self._ranks.share(examples), examples)
        found = []
        for batch in batches:
            last = batch is batches[-1]
            with nullcontext() if last else self._ranks.apart(self._wrapped):
                terms = self._forward(self._wrapped, batch, whole, certify)
                # Ranks' gradients are averaged, but their parts have to add up.
                (terms.total * self._ranks.count).backward()  # type: ignore[no-untyped-call]
            found.append(_detached(terms))
        values = self._summed(found, counts, whole)
        accept(values.parts)
        return values

    def measure(self, examples: Sequence[Example]) -> dict[str, float]:
        """The objective on `examples` on this rank alone, without a gradient."""
        self._note(examples)
        if self._micro is None or len(examples) <= self._micro:
            return self._forward(self._own, self._collate(examples), None).values()
        batches = [self._collate(part) for part in self._cut(examples)]
        counts = [self._count(batch) for batch in batches]
        whole = Counts(*(sum(count) for count in zip(*counts, strict=True)))
        values = [self._forward(self._own, batch, whole).values() for batch in batches]
        return {name: sum(value[name] for value in values) for name in values[0]}

    def _note(self, examples: Sequence[Example]) -> None:
        lengths = [len(example.prompt) + len(example.target) for example in examples]
        self.shape = (len(lengths), max(lengths, default=0))

    @property
    def _whole(self) -> bool:
        return self._micro is None and self._ranks.count == 1

    def _forward(
        self, module: nn.Module, batch: Batch, counts: Counts | None, certify: bool = False
    ) -> Terms:
        with self._precision():
            return module(batch, counts, certify)  # type: ignore[no-any-return]

    def _precision(self) -> AbstractContextManager[Any]:
        """Matrix products in bfloat16, if asked for; the weights themselves stay float32."""
        if not self._half:
            return nullcontext()
        return torch.autocast(self._own.model.device.type, dtype=torch.bfloat16)

    def _cut(self, examples: Sequence[Example]) -> list[Sequence[Example]]:
        size = self._micro or max(len(examples), 1)
        return [examples[first : first + size] for first in range(0, len(examples), size)]

    def _parts(
        self, own: Sequence[Example], examples: Sequence[Example]
    ) -> tuple[list[Batch], list[Counts], Counts]:
        """This rank's micro-batches, what each of them counts, and what all ranks' do."""
        batches = [self._collate(part) for part in self._cut(own)]
        # A rank without rows takes part with one of which nothing is scored.
        batches = batches or [self._collate(examples[:1]).unscored()]
        counts = [self._count(batch) for batch in batches]
        sums = [sum(count) for count in zip(*counts, strict=True)]
        whole = Counts(*(int(total) for total in self._ranks.summed(sums)))
        return batches, counts, whole

    def _count(self, batch: Batch) -> Counts:
        return self._own.objective.counts(self._own.model, batch)

    def _summed(self, found: Sequence[Terms], counts: Sequence[Counts], whole: Counts) -> Values:
        parts = [terms.values() for terms in found]
        names = list(parts[0])
        sums = self._ranks.summed([sum(part[name] for part in parts) for name in names])
        exactness: dict[str, float] = {}
        stated = [terms.exactness for terms in found]
        for one, count in chain(*self._ranks.gathered(list(zip(stated, counts, strict=True)))):
            _include(exactness, one, count.distillation / max(whole.distillation, 1))
        return Values(dict(zip(names, sums, strict=True)), _rooted(exactness))


def _detached(terms: Terms) -> Terms:
    """The values of `terms`, which let go of their graph."""

    def value(part: Tensor) -> Tensor:
        return part.detach()

    distillation = None if terms.distillation is None else value(terms.distillation)
    return Terms(value(terms.total), value(terms.cross_entropy), distillation, terms.exactness)


def _include(sums: dict[str, float], part: dict[str, float], share: float) -> None:
    """Add a part's statements about its exactness; it has a `share` of the tokens."""
    for name, value in part.items():
        if name == "logit_error_max":
            sums[name] = max(sums.get(name, 0.0), value)
        elif name == "logit_error_infinite":  # a count of tokens
            sums[name] = sums.get(name, 0.0) + value
        elif name == "logit_error_std":  # squares, see `_rooted`
            sums[name] = sums.get(name, 0.0) + (share * value) ** 2
        else:
            sums[name] = sums.get(name, 0.0) + share * value


def _rooted(sums: dict[str, float]) -> dict[str, float]:
    return {
        name: math.sqrt(value) if name == "logit_error_std" else value
        for name, value in sums.items()
    }
