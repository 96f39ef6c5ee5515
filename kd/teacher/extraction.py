"""The teacher's next-token distributions over its own answers, computed once and stored.

One teacher-forced pass: the prompt is the one the teacher answered, the answer is encoded as
it follows that prompt, and only the positions that predict an answer token are stored.
"""

from collections.abc import Sequence
from itertools import chain
from pathlib import Path

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from kd.data.prompts import TEMPLATES
from kd.errors import DataError, ModelError
from kd.experiment.logits import Logits
from kd.experiment.stages import ExtractSpec
from kd.logits.index import Origin
from kd.logits.journal import discard_partial
from kd.logits.rows import AnswerBatch
from kd.logits.summary import summarise
from kd.logits.writer import LogitWriter
from kd.models.encoding import context_length, encode_prompt, vocabulary_digest
from kd.models.loading import load_model, pick_device
from kd.models.offsets import encode_answer_with_ends
from kd.models.placement import LESS_MEMORY, placement_notes
from kd.progress import progress
from kd.provenance.canonical import digest
from kd.provenance.manifest import StageRecord, producer_of
from kd.resume.finished import is_done, settle
from kd.teacher.answers import Answer, read_answers
from kd.teacher.forward import Encoded, answer_logits, batches

# Bounds memory whatever the lengths are: padded tokens of one forward pass, entries of its logits.
TOKEN_BUDGET = 4096
LOGIT_BUDGET = 1 << 25
ONE_ROW = 1


def extract_logits(
    spec: ExtractSpec,
    model_path: Path,
    answers_path: Path,
    out: Path,
    checkpoints: Path | None = None,
) -> None:
    """Stage `extract`: write the logit store `out` for all non-empty answers.

    One that was killed is continued: what is in the store in the end does not depend on that.
    Once done, links to it may be kept in the folder `checkpoints` (`kd.resume.finished`).

    Raises:
        ArtifactError: an input is missing or changed, or another process writes the same store.
        DataError: a row is too long for the teacher.
    """
    inputs = {"model": model_path, "answers": answers_path}
    pick_device()
    record = StageRecord("extract", spec, inputs, ("kd.teacher.extraction",), external=("model",))
    links = None if checkpoints is None else checkpoints / record.fingerprint[:16]
    if is_done(record, links, out):
        discard_partial(out)
        return
    model, tokenizer = load_model(model_path, placement=spec.load)
    answers = [answer for answer in read_answers(answers_path) if answer.answer]
    rows = [_encode(answer, model, tokenizer) for answer in answers]
    origin = Origin(
        model=record.inputs["model"]["sha256"],
        revision=_hub_commit(model_path),
        tokenizer=vocabulary_digest(tokenizer),
        template=digest(TEMPLATES),
        answers=record.inputs["answers"]["sha256"],
        dtype=str(model.dtype).removeprefix("torch."),
    )
    with _writer(out, spec.logits, model, origin, record.fingerprint) as writer:
        _write_rows(writer, [answer.id for answer in answers], rows, model, spec.logits)
        notes = summarise(writer.finish()) | placement_notes(spec.load, model)
    record.write(out, notes=notes)
    if links is not None:
        settle(record, links, out)
    discard_partial(out)


def _hub_commit(model_path: Path) -> str | None:
    """The commit on the hub that a fetched model is; None of one that is not from there."""
    made = producer_of(model_path)
    return None if made is None else made["notes"].get("commit")


def _writer(
    out: Path, logits: Logits, model: PreTrainedModel, origin: Origin, fingerprint: str
) -> LogitWriter:
    return LogitWriter(
        out,
        vocabulary=model.config.vocab_size,
        epsilon=logits.epsilon,
        cap=logits.cap,
        ids=logits.ids,
        precision=logits.precision,
        temperatures=logits.temperatures,
        draws=logits.sampling.draws if logits.sampling else None,
        seed=logits.sampling.seed if logits.sampling else 0,
        origin=origin,
        fingerprint=fingerprint,
    )


@torch.inference_mode()
def _write_rows(
    writer: LogitWriter,
    ids: Sequence[str],
    rows: Sequence[Encoded],
    model: PreTrainedModel,
    logits: Logits,
) -> None:
    budget = ONE_ROW if logits.deterministic else TOKEN_BUDGET
    written = 0
    with progress("teacher logits", len(rows)) as advance:
        for batch in batches(rows, budget, LOGIT_BUDGET, model.config.vocab_size):
            written += len(batch)
            # Shards end with a batch, so that of a batch all rows are done, or none.
            if ids[batch[0]] not in writer.done:
                chosen = [rows[place] for place in batch]
                answers = AnswerBatch(
                    ids=[ids[place] for place in batch],
                    lengths=[len(row.answer) for row in chosen],
                    tokens=torch.tensor(list(chain(*(row.answer for row in chosen)))),
                    ends=torch.tensor(list(chain(*(row.ends for row in chosen)))),
                )
                writer.add_batch(answers, _logits(model, chosen))
            advance(written, "")


def _logits(model: PreTrainedModel, rows: Sequence[Encoded]) -> torch.Tensor:
    try:
        return answer_logits(model, rows)
    except torch.OutOfMemoryError:
        tokens = len(rows) * max(row.length for row in rows)
        raise ModelError(
            f"out of memory while the teacher read {len(rows)} rows ({tokens} tokens with "
            f"padding). {LESS_MEMORY}"
        ) from None


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
    return Encoded(prompt, target, ends)
