"""Stage `distill`: a student, a teacher's text and stored logits, one method, one seed."""

from pathlib import Path
from typing import Any

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from kd.data.rows import read_rows
from kd.errors import ArtifactError, LossError
from kd.experiment.stages import DistillSpec
from kd.logits.reader import LogitReader
from kd.losses.catalogue import loss_info
from kd.models.encoding import context_length, vocabulary_digest
from kd.models.loading import load_model
from kd.progress import progress
from kd.provenance.canonical import canonical_json
from kd.provenance.files import atomic_directory, write_text
from kd.provenance.manifest import StageRecord
from kd.teacher.answers import Answer, read_answers
from kd.training.batches import Collator
from kd.training.checkpoints import CheckpointFolder
from kd.training.code import distillation_modules
from kd.training.examples import ExampleSet, build_examples, subset
from kd.training.loop import Loop, Material
from kd.training.objective import Objective


def distill(
    spec: DistillSpec,
    inputs: dict[str, Path],
    out: Path,
    checkpoints: Path,
) -> None:
    """Train the student and write `out/model/` and `out/train.jsonl`.

    Args:
        spec: method, training, fraction and seed.
        inputs: `student` (model folder), `train` and `validation` (rows), `answers`, and
            `logits` (store) unless the method's loss is 'none'.
        out: the run's folder.
        checkpoints: folder for checkpoints, which are removed on success.

    Raises:
        ArtifactError: an input is missing or damaged.
        TrainingError: the loss is not finite.
    """
    code = distillation_modules(spec.method.loss)
    record = StageRecord("distill", spec, inputs, code, external=("student",))
    model, tokenizer = load_model(inputs["student"])
    store = _open_store(spec, inputs)
    _require_one_vocabulary(spec, store, tokenizer)
    material, counts = _material(spec, inputs, model, tokenizer, store)
    objective = Objective(
        spec.method,
        eos_token_id=tokenizer.eos_token_id,
        shift=not model.config.is_encoder_decoder,
    )
    loop = Loop(model, objective, material, training=spec.training, seed=spec.seed)
    folder = CheckpointFolder(checkpoints, record.fingerprint)
    what = f"{spec.method.loss} on {spec.dataset}, seed {spec.seed}"
    with progress(what, loop.total_steps) as advance:
        loop.run(folder, advance)
    _write_model(loop, tokenizer, out / "model")
    curve = "".join(canonical_json(entry) + "\n" for entry in loop.history)
    write_text(out / "train.jsonl", curve)
    notes: dict[str, Any] = {"counts": counts, "steps": loop.total_steps, "selected": loop.best}
    record.write(out / "model", out / "train.jsonl", notes=notes)
    folder.remove()


def _open_store(spec: DistillSpec, inputs: dict[str, Path]) -> LogitReader | None:
    if spec.method.loss == "none":
        return None
    if "logits" not in inputs:
        raise ArtifactError(
            f"loss '{spec.method.loss}' needs the teacher's logits. Give --logits FOLDER."
        )
    return LogitReader(inputs["logits"])


def _require_one_vocabulary(
    spec: DistillSpec, store: LogitReader | None, tokenizer: PreTrainedTokenizerBase
) -> None:
    if store is None or not loss_info(spec.method.loss).same_vocabulary:
        return
    if store.index.tokenizer != vocabulary_digest(tokenizer):
        raise LossError(
            f"loss '{spec.method.loss}' needs one shared tokenizer, but the student's tokens are "
            "not the teacher's. Share the tokenizer, or name a loss that works across tokenizers."
        )


def _material(
    spec: DistillSpec,
    inputs: dict[str, Path],
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    store: LogitReader | None,
) -> tuple[Material, dict[str, Any]]:
    answers = read_answers(inputs["answers"])
    splits = {
        "train": subset(_of_split(answers, "train"), spec.fraction, spec.seed),
        "validation": _of_split(answers, "validation"),
    }
    encoder_decoder = bool(model.config.is_encoder_decoder)
    sets: dict[str, ExampleSet] = {}
    for split, chosen in splits.items():
        rows = {row.id: row for row in read_rows(inputs[split])}
        sets[split] = build_examples(
            rows,
            chosen,
            tokenizer,
            encoder_decoder=encoder_decoder,
            max_length=min(spec.training.max_length, context_length(model, tokenizer)),
        )
    collate = Collator(tokenizer.pad_token_id, encoder_decoder=encoder_decoder, store=store)
    material = Material(sets["train"].examples, sets["validation"].examples, collate)
    return material, {split: found.counts() for split, found in sets.items()}


def _of_split(answers: list[Answer], split: str) -> list[Answer]:
    return [answer for answer in answers if answer.split == split]


def _write_model(loop: Loop, tokenizer: PreTrainedTokenizerBase, out: Path) -> None:
    loop.model.load_state_dict(dict(loop.selected_weights()))
    with atomic_directory(out) as staging:
        loop.model.save_pretrained(staging)
        tokenizer.save_pretrained(staging)
