"""A teacher run over answers that are given, its output layer at their tokens alone.

An output layer is as wide as a vocabulary, and most positions are prompt or padding. Rows are
picked where hidden states enter it, by a hook on the layer itself, so that whatever a model does
before (projections, scales) and after (biases, caps) happens as it always does: no code here
knows an architecture.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedModel

from kd.errors import ModelError
from kd.models.encoding import pad_batch


@dataclass(frozen=True)
class Encoded:
    """A prompt and the answer to it, in a teacher's tokens."""

    prompt: list[int]
    answer: list[int]
    ends: list[int]  # byte of the answer's text at which each of its tokens ends

    @property
    def length(self) -> int:
        """Tokens of both."""
        return len(self.prompt) + len(self.answer)


def batches(
    rows: Sequence[Encoded], token_budget: int, logit_budget: int, vocabulary: int
) -> Iterator[list[int]]:
    """Places of rows of similar length, in batches within both budgets; a row is never cut.

    Args:
        rows: what to run over.
        token_budget: padded tokens of a batch.
        logit_budget: entries of a batch's logits.
        vocabulary: entries of one token's logits.
    """
    batch: list[int] = []
    answers = 0
    for place in sorted(range(len(rows)), key=lambda i: (rows[i].length, i)):
        answers += len(rows[place].answer)
        # Sorted by length, so the newest row is the longest: it sets the padded width.
        padded = rows[place].length * (len(batch) + 1)
        if batch and (padded > token_budget or answers * vocabulary > logit_budget):
            yield batch
            batch, answers = [], len(rows[place].answer)
        batch.append(place)
    if batch:
        yield batch


def answer_logits(model: PreTrainedModel, rows: Sequence[Encoded]) -> Tensor:
    """Logits [M, V] that predict each answer token, the rows' tokens end to end."""
    counts = [len(row.answer) for row in rows]
    sequence = torch.repeat_interleave(torch.tensor(counts))
    if model.config.is_encoder_decoder:
        start = model.config.decoder_start_token_id
        inputs = _padded([row.prompt for row in rows], model)
        decoder = [[start, *row.answer[:-1]] for row in rows]
        inputs["decoder_input_ids"] = _padded(decoder, model)["input_ids"]
        first = [0] * len(rows)
    else:
        inputs = _padded([row.prompt + row.answer for row in rows], model)
        # Position t predicts token t + 1: the prompt's last the answer's first.
        first = [len(row.prompt) - 1 for row in rows]
    position = torch.cat([torch.arange(at, at + n) for at, n in zip(first, counts, strict=True)])
    sequence, position = sequence.to(model.device), position.to(model.device)
    with _only_at(model, sequence, position) as taken:
        logits: Tensor = model(**inputs, use_cache=False).logits
    if not taken:  # an output layer that is not called as a module
        return logits[sequence.to(logits.device), position.to(logits.device)]
    if logits.shape[:2] != (1, len(position)):
        raise ModelError(
            f"{type(model).__name__} gives logits of shape {tuple(logits.shape)} for "
            f"{len(position)} answer tokens: its output layer does not keep positions apart."
        )
    return logits[0]


@contextmanager
def _only_at(model: PreTrainedModel, sequence: Tensor, position: Tensor) -> Iterator[list[bool]]:
    """Let only these positions through the output layer; what is yielded tells if any went."""
    taken: list[bool] = []

    def pick(layer: torch.nn.Module, given: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        taken.append(True)
        hidden = given[0]  # on the last GPU, where layers are spread over several
        at = sequence.to(hidden.device), position.to(hidden.device)
        return (hidden[at][None], *given[1:])

    layer = model.get_output_embeddings()  # type: ignore[no-untyped-call]
    hook = layer.register_forward_pre_hook(pick)
    try:
        yield taken
    finally:
        hook.remove()


def _padded(rows: Sequence[Sequence[int]], model: PreTrainedModel) -> dict[str, Tensor]:
    ids, mask = pad_batch(rows, pad=0)  # any id will do: nothing that is stored sees padding
    return {"input_ids": ids.to(model.device), "attention_mask": mask.to(model.device)}
