"""A teacher that runs at every step, for what a store of logits cannot give.

That is: its distributions over text that the student wrote, its hidden states, and its
attentions. Nothing here is trained and no gradient is kept.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from kd.errors import DataError
from kd.experiment.placement import Placement
from kd.losses.features import ModelFeatures
from kd.models.encoding import context_length, encode_prompt, vocabulary_digest
from kd.models.loading import load_model
from kd.training.batches import Batch, Collator
from kd.training.examples import Example, encode_target


@dataclass(frozen=True)
class TeacherOutputs:
    """What a teacher computed on a batch; features where they were asked for."""

    logits: Tensor  # [B, T, V]
    labels: Tensor  # [B, T], EOS is not scored
    ends: Tensor  # [B, T], as `Batch.ends`
    features: ModelFeatures | None


class LiveTeacher:
    """A frozen teacher and the prompts under which it answers."""

    def __init__(
        self,
        folder: Path,
        prompts: Mapping[str, str],
        student: PreTrainedTokenizerBase,
        placement: Placement | None = None,
    ) -> None:
        """Load the teacher.

        Args:
            folder: its model folder.
            prompts: its own (few-shot) prompt of each row, by id.
            student: the student's tokenizer; where both are the same, tokens are never cut anew.
            placement: how it lies in memory.
        """
        self.model, self.tokenizer = load_model(folder, placement=placement)
        self.model.requires_grad_(False)
        self._prompts = prompts
        self.same_tokenizer = vocabulary_digest(self.tokenizer) == vocabulary_digest(student)
        self._collate = Collator(
            self.tokenizer.pad_token_id, encoder_decoder=self.encoder_decoder, store=None
        )

    @property
    def encoder_decoder(self) -> bool:
        """Whether the teacher is an encoder-decoder."""
        return bool(self.model.config.is_encoder_decoder)

    def collate(self, examples: Sequence[Example]) -> Batch:
        """The examples' answers, each after the teacher's own prompt, in the teacher's tokens.

        Raises:
            DataError: an answer does not fit into the teacher's context.
        """
        return self._collate([self._read(example) for example in examples])

    def _read(self, example: Example) -> Example:
        prompt = encode_prompt(self.tokenizer, self._prompts[example.id], self.encoder_decoder)
        target, ends = self._answer(example)
        limit = context_length(self.model, self.tokenizer)
        room = limit if self.encoder_decoder else limit - len(prompt)
        if example.by_student:  # however long it is in these tokens, what fits is compared
            target, ends = target[: max(room, 0)], ends[: max(room, 0)]
        if max(len(target) - room, len(prompt) - limit) > 0:
            raise DataError(
                f"row '{example.id}': the teacher's prompt takes {len(prompt)} tokens and the "
                f"answer {len(target)}, but the teacher reads {limit}. Lower its 'shots'."
            )
        return replace(example, prompt=prompt, target=target, ends=ends)

    def _answer(self, example: Example) -> tuple[list[int], list[int]]:
        """The answer in the teacher's tokens, and where they end; EOS as in the example."""
        if not self.same_tokenizer:
            if not example.answer:
                return [self.tokenizer.eos_token_id], [0]
            target, ends = encode_target(self.tokenizer, example.answer)
            return (target[:-1], ends[:-1]) if example.by_student else (target, ends)
        if example.by_student:
            return example.target, example.ends
        # The end-of-text token may be another one, as in a base model and its chat variant.
        return [*example.target[:-1], self.tokenizer.eos_token_id], example.ends

    @torch.no_grad()
    def __call__(self, batch: Batch, *, features: bool) -> TeacherOutputs:
        """Run the teacher on what `collate` made."""
        outputs = self.model(
            **batch.inputs,
            output_hidden_states=features,
            output_attentions=features,
            use_cache=False,  # nothing is generated
        )
        return TeacherOutputs(
            logits=outputs.logits,
            labels=batch.scored(self.tokenizer.eos_token_id),
            ends=batch.ends,
            features=features_of(self.model, outputs) if features else None,
        )


def features_of(model: PreTrainedModel, outputs: object) -> ModelFeatures:
    """Hidden states and attentions of a model's outputs; an encoder-decoder's decoder's."""
    side = "decoder_" if model.config.is_encoder_decoder else ""
    return ModelFeatures(
        hidden=getattr(outputs, f"{side}hidden_states"),
        attentions=getattr(outputs, f"{side}attentions", None) or (),
    )
