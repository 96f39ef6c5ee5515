"""Answers that a student samples while it learns, for on-policy distillation."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

from kd.data.prompts import answer_text
from kd.experiment.methods import OnPolicy
from kd.models.encoding import pad_batch
from kd.training.examples import Example, encode_target


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
        training = model.training
        model.train(False)
        with torch.no_grad(), torch.random.fork_rng(devices=_cuda_devices(model)):
            torch.manual_seed((self._seed << 32) + step)
            drawn = self._sample(model, [example.prompt for example in examples])
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
        eos = self._tokenizer.eos_token_id
        ids = row.tolist()
        ids = ids[: ids.index(eos)] if eos in ids else ids
        answer = answer_text(str(self._tokenizer.decode(ids, skip_special_tokens=True)))
        # The teacher reads the very tokens, so that any growing ends align them one by one.
        target, ends = [*ids, eos], [*range(1, len(ids) + 1), len(ids)]
        if not self._exact:
            target, ends = encode_target(self._tokenizer, answer) if answer else ([eos], [0])
        return replace(example, target=target, ends=ends, answer=answer, by_student=True)


def _cuda_devices(model: PreTrainedModel) -> list[torch.device]:
    return [model.device] if model.device.type == "cuda" else []
