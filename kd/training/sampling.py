"""Answers that a student samples while it learns, for on-policy distillation."""

import random
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

from kd.data.prompts import answer_text
from kd.experiment.methods import OnPolicy
from kd.models.encoding import pad_batch
from kd.models.offsets import encode_answer_with_ends
from kd.training.examples import Example


class Sampler:
    """Draws one answer for each prompt. The draw is a function of seed, step and weights."""

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, settings: OnPolicy, *, exact: bool, seed: int
    ) -> None:
        """Prepare to sample.

        Args:
            tokenizer: the student's.
            settings: longest answer and temperature.
            exact: keep the very tokens that were drawn, as a teacher with the same tokenizer
                can read them; otherwise their text is cut into tokens anew, as the teacher's
                will be.
            seed: of the run.
        """
        self._tokenizer = tokenizer
        self._settings = settings
        self._exact = exact
        self._seed = seed

    def __call__(
        self, model: PreTrainedModel, examples: Sequence[Example], step: int
    ) -> list[Example]:
        """The examples with answers that `model` samples now."""
        training, configured = model.training, model.generation_config
        model.train(False)
        # Nothing of the model's own generation settings (suppressed tokens, penalties) may
        # bend the distribution that is sampled.
        model.generation_config = GenerationConfig()  # type: ignore[no-untyped-call]
        with torch.no_grad(), torch.random.fork_rng(devices=_cuda_devices(model)):
            torch.manual_seed(random.Random(f"sample-{self._seed}-{step}").getrandbits(63))
            drawn = self._sample(model, [example.prompt for example in examples])
        model.generation_config = configured
        model.train(training)
        return [self._answered(*pair) for pair in zip(examples, drawn, strict=True)]

    def _sample(self, model: PreTrainedModel, prompts: Sequence[list[int]]) -> Tensor:
        encoder_decoder = bool(model.config.is_encoder_decoder)
        inputs, mask = pad_batch(prompts, self._pad, left=not encoder_decoder)
        output: Tensor = model.generate(  # type: ignore[operator]
            inputs.to(model.device),
            attention_mask=mask.to(model.device),
            generation_config=self._generation(model),
        )
        return output[:, 1 if encoder_decoder else inputs.shape[1] :]

    @property
    def _pad(self) -> int:
        return int(self._tokenizer.pad_token_id)

    def _generation(self, model: PreTrainedModel) -> GenerationConfig:
        return GenerationConfig(  # type: ignore[no-untyped-call]
            max_new_tokens=self._settings.max_new_tokens,
            do_sample=True,
            temperature=self._settings.sampling_temperature,
            top_k=0,  # the student's whole distribution: an estimate of its own expectation
            top_p=1.0,
            pad_token_id=self._pad,
            eos_token_id=self._tokenizer.eos_token_id,
            decoder_start_token_id=getattr(model.config, "decoder_start_token_id", None),
        )

    def _answered(self, example: Example, row: Tensor) -> Example:
        ids = self._until_end(row.tolist())
        answer = answer_text(self._text(ids))
        # The teacher reads the very tokens, so that any growing ends align them one by one.
        eos = self._tokenizer.eos_token_id
        target, ends = ids, list(range(1, len(ids) + 1))
        if not self._exact:
            target, ends = (
                encode_answer_with_ends(self._tokenizer, answer) if answer else ([eos], [0])
            )
        return replace(example, target=target, ends=ends, answer=answer, by_student=True)

    def _until_end(self, ids: list[int]) -> list[int]:
        """The tokens up to the one that ends the answer, EOS or a newline after text."""
        for count, token in enumerate(ids, start=1):
            if token == self._tokenizer.eos_token_id or "\n" in self._text(ids[:count]).lstrip():
                return ids[:count]
        return ids

    def _text(self, ids: list[int]) -> str:
        return str(self._tokenizer.decode(ids, skip_special_tokens=True))


def _cuda_devices(model: PreTrainedModel) -> list[torch.device]:
    return [model.device] if model.device.type == "cuda" else []
