"""Rows as training sequences: what a micro model reads at each step of its pretraining.

A decoder reads sequences of one dataset: a few solved examples, then a context and all
questions about it, each followed by its answer, which teaches reading a context several
times faster than one question a sequence. An encoder-decoder reads one question at a time.
The batch of a step follows from (seed, step) alone: there is no other state to keep.
"""

import hashlib
import itertools
import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from transformers import PreTrainedTokenizerBase

from kd.data.prompts import build_prompt, follow_up
from kd.data.rows import Row
from kd.errors import DataError
from kd.experiment.models import MicroModel
from kd.models.architectures import ENCODER_DECODERS
from kd.models.encoding import encode_answer

PROMPT_WEIGHT = 0.1  # of a prompt token's loss, where an answer token's is 1
QUOTED = 2  # sentences, or turns of a dialogue


@dataclass(frozen=True)
class Example:
    """A row as token ids: its prompt, its answer without end token, its question alone."""

    prompt: list[int]
    answer: list[int]
    follow_up: list[int]


@dataclass(frozen=True)
class Batch:
    """Inputs and, at the position that predicts them, targets with their weights, all [B, T].

    For an encoder-decoder `inputs` and `attention` belong to the encoder, the rest to the
    decoder, and the two have different lengths.
    """

    inputs: torch.Tensor
    attention: torch.Tensor
    targets: torch.Tensor
    weights: torch.Tensor


Drawn = tuple[list[Example], list[Example]]  # solved examples, rows of one context


class Corpus:
    """The rows of all datasets as token ids, and the batches drawn from them."""

    def __init__(
        self,
        spec: MicroModel,
        tokenizer: PreTrainedTokenizerBase,
        rows: Mapping[str, Sequence[Row]],
    ) -> None:
        self.spec = spec
        self.encoder_decoder = spec.architecture in ENCODER_DECODERS
        self.start = [] if tokenizer.bos_token_id is None else [tokenizer.bos_token_id]
        self.separator = tokenizer.encode("\n\n", add_special_tokens=False)
        self.pad, self.eos = tokenizer.pad_token_id, tokenizer.eos_token_id
        self.scenes = {name: self._scenes(name, tokenizer, rows[name]) for name in sorted(rows)}

    def _scenes(
        self, dataset: str, tokenizer: PreTrainedTokenizerBase, rows: Sequence[Row]
    ) -> list[list[Example]]:
        """The rows of each context that leave room for the examples shown before them."""
        answer = quote if self.spec.pretraining.answers == "quote" else _own
        shots = max(self.spec.pretraining.shots)
        room = self.spec.context // (shots + 1) - len(self.separator) - len(self.start) - 1
        scenes = []
        for _, scene in itertools.groupby(rows, lambda row: (row.title, row.context)):
            examples = [_encode(tokenizer, row, answer(row)) for row in scene]
            fitting = [item for item in examples if len(item.prompt) + len(item.answer) <= room]
            if fitting:
                scenes.append(fitting)
        if len(scenes) <= shots:
            raise DataError(
                f"Dataset '{dataset}': only {len(scenes)} contexts of {len(rows)} rows fit the "
                f"{self.spec.context} tokens of the model's 'context' together with {shots} "
                "example(s). Enlarge the context or lower 'shots'."
            )
        return scenes

    def batch(self, step: int) -> Batch:
        """The batch of `step`, counted from 0: datasets in turn, as many examples for all."""
        settings = self.spec.pretraining
        rng = _generator(self.spec.seed, f"batch/{step}")
        shots = settings.shots[step * len(settings.shots) // settings.steps]
        names = list(self.scenes)
        offset = step * settings.batch_size
        drawn = []
        for place in range(offset, offset + settings.batch_size):
            *others, scene = rng.sample(self.scenes[names[place % len(names)]], shots + 1)
            order = rng.sample(scene, len(scene))
            drawn.append(([rng.choice(other) for other in others], order))
        join = self._encoder_decoder_batch if self.encoder_decoder else self._decoder_batch
        return join(drawn)

    def _decoder_batch(self, drawn: Sequence[Drawn]) -> Batch:
        sequences = [self._sequence(shots, scene) for shots, scene in drawn]
        inputs = _pad([ids for ids, _ in sequences], self.pad)
        weights = _pad([weights for _, weights in sequences], 0.0)
        # Padding stands on the right, where causal attention does not see it.
        attention = torch.ones_like(inputs[:, :-1])
        return Batch(inputs[:, :-1], attention, inputs[:, 1:], weights[:, 1:])

    def _sequence(
        self, shots: Sequence[Example], scene: Sequence[Example]
    ) -> tuple[list[int], list[float]]:
        """Token ids of a sequence and the weights of their losses."""
        ids, weights = list(self.start), [0.0] * len(self.start)
        for shot in shots:
            ids += shot.prompt + shot.answer + self.separator
            weights += [PROMPT_WEIGHT] * len(shot.prompt) + [1.0] * len(shot.answer)
            weights += [0.0] * len(self.separator)
        first, *more = scene
        parts = [(first.prompt, first.answer)]
        parts += [(self.separator + item.follow_up, item.answer) for item in more if item.follow_up]
        for prompt, answer in parts:
            if len(ids) + len(prompt) + len(answer) >= self.spec.context:
                break
            ids += [*prompt, *answer, self.eos]
            weights += [PROMPT_WEIGHT] * len(prompt) + [1.0] * (len(answer) + 1)
        return ids, weights

    def _encoder_decoder_batch(self, drawn: Sequence[Drawn]) -> Batch:
        prompts, answers = [], []
        for shots, (last, *_) in drawn:
            solved = [[*shot.prompt, *shot.answer, *self.separator] for shot in shots]
            prompts.append([*itertools.chain(*solved), *last.prompt, self.eos])
            answers.append([*last.answer, self.eos])
        return Batch(
            _pad(prompts, self.pad),
            _pad([[1] * len(ids) for ids in prompts], 0),
            _pad(answers, self.pad),
            _pad([[1.0] * len(ids) for ids in answers], 0.0),
        )


def _encode(tokenizer: PreTrainedTokenizerBase, row: Row, answer: str) -> Example:
    return Example(
        tokenizer.encode(build_prompt(row, []), add_special_tokens=False),
        encode_answer(tokenizer, answer),
        tokenizer.encode(follow_up(row), add_special_tokens=False),
    )


def quote(row: Row) -> str:
    """The sentence of the context that shares most words with the answer, and its neighbour.

    So answers a model that knows its language and its world, but not the task's way of
    answering.
    """
    sentences = [part for part in re.split(r"(?<=[.!?])\s+|\n", row.context) if part.strip()]
    answer = _words(row.answers[0])

    def overlap(place: int) -> float:
        words = _words(sentences[place])
        return len(words & answer) / (len(words) + len(answer))

    first = min(max(range(len(sentences)), key=overlap), max(0, len(sentences) - QUOTED))
    return " ".join(sentences[first : first + QUOTED])


def _own(row: Row) -> str:
    return row.answers[0]


def _words(text: str) -> set[str]:
    return set(re.findall(r"\w+", text.lower()))


def _pad(rows: Sequence[Sequence[float]], value: float) -> torch.Tensor:
    width = max(len(row) for row in rows)
    return torch.tensor([[*row, *[value] * (width - len(row))] for row in rows])


def _generator(seed: int, purpose: str) -> random.Random:
    digest = hashlib.sha256(f"{seed}/{purpose}".encode()).digest()
    return random.Random(int.from_bytes(digest[:8], "big"))
