"""Greedy generation in batches, the same for teachers and students.

Prompts are encoded by `kd.models.encoding`, as in training. Decoders are padded on the
left, encoders on the right, and a mask hides the padding, so that an answer does not
depend on the batch it was generated in (beyond float rounding).
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase
from transformers.generation.logits_process import LogitsProcessor, LogitsProcessorList
from transformers.generation.stopping_criteria import StoppingCriteriaList

from kd.data.prompts import answer_text
from kd.errors import DataError, ModelError
from kd.evaluation.endings import AnswerEnd, Endings
from kd.evaluation.predictions import FinishReason
from kd.experiment.schema import Generation
from kd.models.encoding import context_length, encode_prompt, pad_batch
from kd.progress import Advance
from kd.resume.journal import Journal


@dataclass(frozen=True)
class Generated:
    """One answer. `token_ids` includes the token that ended it, and no padding.

    `confidence` is the product of the tokens' probabilities, rounded to four decimals: how
    processors round must not be seen.
    """

    text: str
    token_ids: list[int]
    finish_reason: FinishReason
    confidence: float


class Backend(Protocol):
    """Something other than transformers that continues prompts greedily."""

    name: str

    def generate(self, prompts: Sequence[list[int]]) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """New tokens [T] of each prompt and their log-probabilities [T]; T may differ."""
        ...


def generate(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[str],
    settings: Generation,
    progress: Advance | None = None,
    *,
    ids: Sequence[str] | None = None,
    journal: Journal | None = None,
    backend: Backend | None = None,
) -> list[Generated]:
    """Answer each prompt greedily; results are in the order of `prompts`.

    An answer ends at EOS (the tokenizer's), at the first newline after some text, or after
    `settings.max_new_tokens` tokens. The model is left in evaluation mode.

    Args:
        model: a decoder or an encoder-decoder.
        tokenizer: the model's own.
        prompts: texts as `kd.data.prompts.build_prompt` makes them.
        settings: batch size and longest answer.
        progress: called with the number of prompts answered so far.
        ids: the rows' ids, for error messages.
        journal: batches that were answered before; those answered now are added.
        backend: what generates in place of `model`, whose weights are not needed then.

    Raises:
        DataError: a prompt leaves no room for an answer in the model's context.
        ModelError: a batch does not fit into memory.
    """
    encoded = [encode_prompt(tokenizer, prompt, _has_encoder(model)) for prompt in prompts]
    _refuse_long(encoded, prompt_limit(model, tokenizer, settings), ids)
    model.train(False)
    # Nothing of the model's own generation_config.json (suppressed or forced tokens, say) may
    # change the greedy choice.
    model.generation_config = GenerationConfig()  # type: ignore[no-untyped-call]
    endings = Endings.of(model, tokenizer)
    # Longest first: what does not fit in memory fails at once, and padding is least.
    order = sorted(range(len(encoded)), key=lambda index: (-len(encoded[index]), index))
    results: dict[int, Generated] = {}
    answered = list(journal.entries) if journal is not None else []
    for number, batch in enumerate(_batches(order, encoded, settings)):
        if number < len(answered):
            cut = answered[number]
        else:
            asked = [encoded[index] for index in batch]
            rows = (
                _generated(model, asked, endings, settings)
                if backend is None
                else backend.generate(asked)
            )
            cut = [_answered(row, log_probs, endings) for row, log_probs in rows]
            if journal is not None:
                journal.append(cut)
        for index, (token_ids, reason, confidence) in zip(batch, cut, strict=True):
            text = str(tokenizer.decode(token_ids, skip_special_tokens=True))
            results[index] = Generated(answer_text(text), token_ids, reason, confidence)
        if progress is not None:
            progress(len(results), "")
    return [results[index] for index in range(len(order))]


def _batches(
    order: Sequence[int], encoded: Sequence[list[int]], settings: Generation
) -> Iterator[Sequence[int]]:
    """Rows that are answered together, from `order`, the longest first."""
    first = 0
    while first < len(order):
        rows = settings.batch_size
        if settings.token_budget is not None:
            # A static cache never becomes shorter than it was for the first, the longest rows.
            widest = order[0 if settings.cache == "static" else first]
            longest = len(encoded[widest]) + settings.max_new_tokens
            rows = max(1, settings.token_budget // longest)
        yield order[first : first + rows]
        first += rows


def _generated(
    model: PreTrainedModel, asked: Sequence[list[int]], endings: Endings, settings: Generation
) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """New tokens and log-probabilities of each row.

    Raises:
        ModelError: it does not fit into memory.
    """
    try:
        return list(zip(*_generate_batch(model, asked, endings, settings), strict=True))
    except torch.OutOfMemoryError:
        longest = max(len(prompt) for prompt in asked)
        tokens = len(asked) * (longest + settings.max_new_tokens)
        raise ModelError(
            f"out of memory while {len(asked)} prompts of up to {longest} tokens were answered. "
            f"Set 'generation.token_budget: {max(tokens // 2, longest + settings.max_new_tokens)}' "
            f"(this batch had {tokens}), or load the model as 'load: {{dtype: bfloat16}}'."
        ) from None


def _answered(
    row: torch.Tensor, log_probs: torch.Tensor, endings: Endings
) -> tuple[list[int], FinishReason, float]:
    """An answer's tokens, why it ended, and the probability of the whole of it."""
    token_ids, reason = endings.cut(row)
    return token_ids, reason, round(math.exp(log_probs[: len(token_ids)].sum()), 4)


def prompt_limit(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, settings: Generation
) -> int:
    """Most tokens of a prompt: in a decoder, the context also has to hold the answer."""
    context = context_length(model, tokenizer)
    return context if _has_encoder(model) else context - settings.max_new_tokens


def prompt_fits(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, settings: Generation
) -> Callable[[str], bool]:
    """Whether a prompt leaves room for an answer in the model's context."""
    limit = prompt_limit(model, tokenizer, settings)
    has_encoder = _has_encoder(model)
    return lambda prompt: len(encode_prompt(tokenizer, prompt, has_encoder)) <= limit


def _has_encoder(model: PreTrainedModel) -> bool:
    return bool(model.config.is_encoder_decoder)


def _refuse_long(encoded: Sequence[list[int]], limit: int, ids: Sequence[str] | None) -> None:
    for index, tokens in enumerate(encoded):
        if len(tokens) > limit:
            name = f"Row {index + 1}" if ids is None else f"Row {index + 1} ('{ids[index]}')"
            raise DataError(
                f"{name}: its prompt has {len(tokens)} tokens, but the model has room for {limit} "
                "before the answer. Shorten or remove the row, or lower 'shots' or "
                "'generation.max_new_tokens'."
            )


class _LogProbs(LogitsProcessor):
    """Writes down the log-probability of each greedy choice, and changes nothing."""

    def __init__(self) -> None:
        self.steps: list[torch.Tensor] = []  # [B] each

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        self.steps.append(scores.amax(-1) - scores.logsumexp(-1))
        return scores


@torch.inference_mode()
def _generate_batch(
    model: PreTrainedModel, prompts: Sequence[list[int]], endings: Endings, settings: Generation
) -> tuple[torch.Tensor, torch.Tensor]:
    """New tokens [B, T], padded on the right once a row has ended, and log-probabilities [B, T].

    Those of padding mean nothing.
    """
    inputs, mask = pad_batch(prompts, endings.pad, left=not _has_encoder(model))
    log_probs = _LogProbs()
    output: torch.Tensor = model.generate(  # type: ignore[operator]
        inputs.to(model.device),
        attention_mask=mask.to(model.device),
        generation_config=_greedy(model, endings, settings),
        logits_processor=LogitsProcessorList([log_probs]),
        stopping_criteria=StoppingCriteriaList([AnswerEnd(endings, len(prompts))]),
    )
    # A decoder repeats the prompt; an encoder-decoder begins with its start token.
    tokens = output[:, 1 if _has_encoder(model) else inputs.shape[1] :]
    return tokens, torch.stack(log_probs.steps, dim=1).double()


def _greedy(model: PreTrainedModel, endings: Endings, settings: Generation) -> GenerationConfig:
    # The library has no static cache for encoder-decoders.
    static = settings.cache == "static" and not _has_encoder(model)
    return GenerationConfig(  # type: ignore[no-untyped-call]
        max_new_tokens=settings.max_new_tokens,
        min_length=0,
        do_sample=False,
        num_beams=1,
        temperature=1.0,
        top_p=1.0,
        top_k=50,
        repetition_penalty=1.0,
        no_repeat_ngram_size=0,
        pad_token_id=endings.pad,
        eos_token_id=endings.eos,
        decoder_start_token_id=getattr(model.config, "decoder_start_token_id", None),
        **({"cache_implementation": "static"} if static else {}),
    )
