"""The teacher's next-token distributions over its own answers, computed once and stored.

One teacher-forced pass: the prompt is the one the teacher answered, the answer is encoded as
it follows that prompt, and only the positions that predict an answer token are stored.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from kd.errors import DataError
from kd.experiment.stages import ExtractSpec
from kd.logits.writer import LogitWriter
from kd.models.encoding import context_length, encode_prompt, pad_batch, vocabulary_digest
from kd.models.loading import load_model
from kd.models.offsets import encode_answer_with_ends
from kd.progress import progress
from kd.provenance.manifest import StageRecord
from kd.teacher.answers import Answer, read_answers

# Padded tokens of one forward pass: bounds memory whatever the lengths are.
TOKEN_BUDGET = 4096


def extract_logits(spec: ExtractSpec, model_path: Path, answers_path: Path, out: Path) -> None:
    """Stage `extract`: write the logit store `out` for all non-empty answers."""
    inputs = {"model": model_path, "answers": answers_path}
    record = StageRecord("extract", spec, inputs, ("kd.teacher.extraction",), external=("model",))
    model, tokenizer = load_model(model_path)
    answers = [answer for answer in read_answers(answers_path) if answer.answer]
    encoded = [_encode(answer, model, tokenizer) for answer in answers]
    written = 0
    with (
        LogitWriter(
            out,
            vocabulary=model.config.vocab_size,
            epsilon=spec.logits.epsilon,
            cap=spec.logits.cap,
            tokenizer=vocabulary_digest(tokenizer),
        ) as writer,
        progress("teacher logits", len(answers)) as advance,
        torch.inference_mode(),
    ):
        for batch in _batches(encoded):
            for index, logits in zip(batch, _answer_logits(model, encoded, batch), strict=True):
                _, target, ends = encoded[index]
                writer.add(
                    answers[index].id,
                    torch.tensor(target),
                    logits.cpu(),
                    ends=torch.tensor(ends),
                )
            written += len(batch)
            advance(written, "")
    tokens = sum(len(target) for _, target, _ in encoded)
    record.write(out, notes={"rows": len(answers), "answer_tokens": tokens})


Encoded = tuple[list[int], list[int], list[int]]  # prompt, answer, ends of the answer's tokens


def _encode(answer: Answer, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> Encoded:
    encoder_decoder = bool(model.config.is_encoder_decoder)
    prompt = encode_prompt(tokenizer, answer.prompt, encoder_decoder)
    target, ends = encode_answer_with_ends(tokenizer, answer.answer)
    length = max(len(prompt), len(target)) if encoder_decoder else len(prompt) + len(target)
    limit = context_length(model, tokenizer)
    if length > limit:
        raise DataError(
            f"row '{answer.id}': prompt and answer take {length} tokens, the teacher reads "
            f"{limit}. Use fewer shots or a longer context."
        )
    return prompt, target, ends


def _batches(encoded: Sequence[Encoded]) -> Iterator[list[int]]:
    """Rows of similar length together, each batch within the token budget."""
    lengths = [len(prompt) + len(target) for prompt, target, _ in encoded]
    batch: list[int] = []
    for index in sorted(range(len(encoded)), key=lambda i: (lengths[i], i)):
        # Sorted by length, so the newest row is the longest: it sets the padded width.
        if batch and lengths[index] * (len(batch) + 1) > TOKEN_BUDGET:
            yield batch
            batch = []
        batch.append(index)
    if batch:
        yield batch


def _answer_logits(
    model: PreTrainedModel, encoded: Sequence[Encoded], batch: Sequence[int]
) -> list[Tensor]:
    """Logits [answer tokens, vocabulary] that predict each answer token, one tensor per row."""
    rows = [encoded[index] for index in batch]
    if model.config.is_encoder_decoder:
        inputs, mask = _padded([prompt for prompt, _, _ in rows], model)
        start = model.config.decoder_start_token_id
        decoder, _ = _padded([[start, *target[:-1]] for _, target, _ in rows], model)
        logits = model(input_ids=inputs, attention_mask=mask, decoder_input_ids=decoder).logits
        return [logits[row, : len(target)] for row, (_, target, _) in enumerate(rows)]
    inputs, mask = _padded([prompt + target for prompt, target, _ in rows], model)
    logits = model(input_ids=inputs, attention_mask=mask).logits
    # Position t predicts token t + 1: the answer's first token is predicted by the prompt's last.
    return [
        logits[row, len(prompt) - 1 : len(prompt) + len(target) - 1]
        for row, (prompt, target, _) in enumerate(rows)
    ]


def _padded(rows: Sequence[Sequence[int]], model: PreTrainedModel) -> tuple[Tensor, Tensor]:
    ids, mask = pad_batch(rows, pad=0)  # any id will do: nothing that is stored sees padding
    return ids.to(model.device), mask.to(model.device)
