"""Whose text a student learns from at each step: its teacher's, its own, or both."""

import random
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from transformers import PreTrainedModel

from kd.experiment.methods import AdaptiveText, BothTexts, MixedText, Responses
from kd.training.examples import Example
from kd.training.sampling import Sampler


class ResponsePolicy:
    """The teacher's text alone: what a step is given stays as it is.

    Other policies are subclasses. Every decision is a function of seed and step, and what a
    policy remembers is in its `state`, so that a resumed run decides the same.
    """

    def prepare(
        self, model: PreTrainedModel, examples: Sequence[Example], step: int
    ) -> Sequence[Example]:
        """The examples that step `step` trains on."""
        return examples

    def validated(self, loss: float) -> None:
        """Take note of a validation loss."""

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps, as plain values."""
        return {}

    def restore(self, state: dict[str, Any]) -> None:
        """Go back to a kept state."""


class Mixed(ResponsePolicy):
    """GKD (Agarwal et al., arXiv 2306.13649, alg. 1): a share of the steps on student text."""

    def __init__(self, sampler: Sampler, settings: MixedText, seed: int) -> None:
        self._sampler = sampler
        self._share = settings.student_fraction
        self._seed = seed

    def prepare(
        self, model: PreTrainedModel, examples: Sequence[Example], step: int
    ) -> Sequence[Example]:
        """Sample anew, or keep the teacher's answers."""
        sampled = draw(self._seed, step).random() < self._share
        return self._sampler(model, examples, step) if sampled else examples


class Both(ResponsePolicy):
    """DistiLLM-2 (Ko et al., arXiv 2503.07067): both answers to the same prompts."""

    def __init__(self, sampler: Sampler) -> None:
        self._sampler = sampler

    def prepare(
        self, model: PreTrainedModel, examples: Sequence[Example], step: int
    ) -> Sequence[Example]:
        """The teacher's answers, then the student's."""
        return [*examples, *self._sampler(model, examples, step)]


class Adaptive(ResponsePolicy):
    """DistiLLM's adaptive off-policy scheduler (Ko et al., arXiv 2402.03898, section 3.2).

    With probability `share` a step uses student text. It is replayed from a buffer, or, with
    a chance that falls over the run (`replay: decreasing`), sampled afresh. The share grows
    by `increment` whenever validation is worse than at its last growth by `tolerance`.
    """

    def __init__(
        self, sampler: Sampler, settings: AdaptiveText, total_steps: int, seed: int
    ) -> None:
        self._sampler = sampler
        self._settings = settings
        self._total_steps = total_steps
        self._seed = seed
        self._share = settings.share
        self._reference: float | None = None
        self._buffer: list[Example] = []

    def prepare(
        self, model: PreTrainedModel, examples: Sequence[Example], step: int
    ) -> Sequence[Example]:
        """Sample and remember, replay, or keep the teacher's answers."""
        random_ = draw(self._seed, step)
        chance = random_.random()
        if chance >= self._share:
            return examples
        full = len(self._buffer) >= self._settings.capacity
        if not full or chance < self._share * self._fresh(step):
            sampled = self._sampler(model, examples, step)
            self._buffer = [*self._buffer, *sampled][-self._settings.capacity :]
            return sampled
        return random_.sample(self._buffer, min(len(examples), len(self._buffer)))

    def _fresh(self, step: int) -> float:
        """Share of fresh samples among the steps on student text, once the buffer is full."""
        progress = step / self._total_steps
        return {"decreasing": 1 - progress, "constant": 0.5, "increasing": progress}[
            self._settings.replay
        ]

    def validated(self, loss: float) -> None:
        """Raise the share if validation is worse than when it was last raised."""
        if self._reference is None:
            self._reference = loss
        elif loss >= self._reference + self._settings.tolerance:
            self._share = min(1.0, self._share + self._settings.increment)
            self._reference = loss

    def state(self) -> dict[str, Any]:
        """Share, reference and buffer."""
        return {
            "share": self._share,
            "reference": self._reference,
            "buffer": [asdict(example) for example in self._buffer],
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go back to a kept state."""
        self._share, self._reference = state["share"], state["reference"]
        self._buffer = [Example(**example) for example in state["buffer"]]


def build_policy(
    settings: Responses, sampler: Sampler | None, total_steps: int, seed: int
) -> ResponsePolicy:
    """The policy that a method declares; only `teacher` needs no sampler."""
    if sampler is None:
        return ResponsePolicy()
    if isinstance(settings, MixedText):
        return Mixed(sampler, settings, seed)
    if isinstance(settings, BothTexts):
        return Both(sampler)
    assert isinstance(settings, AdaptiveText)
    return Adaptive(sampler, settings, total_steps, seed)


def draw(seed: int, step: int) -> random.Random:
    """The random numbers of one step."""
    return random.Random(f"responses-{seed}-{step}")
