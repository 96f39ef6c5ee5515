"""Stage `distill`: a student, a teacher's text and stored logits, one method, one seed."""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from kd.data.rows import read_rows
from kd.errors import ArtifactError, LossError
from kd.experiment.methods import OnPolicy
from kd.experiment.requirements import reads_logits, reads_teacher_model, runs_teacher
from kd.experiment.stages import DistillSpec
from kd.logits.reader import LogitReader
from kd.losses.catalogue import loss_info
from kd.losses.setup import Setup
from kd.models.adapters import Adapters
from kd.models.encoding import context_length, vocabulary_digest
from kd.models.loading import load_model, pick_device
from kd.parallel.ranks import Ranks, join
from kd.progress import progress
from kd.provenance.canonical import canonical_json
from kd.provenance.files import atomic_directory, write_text
from kd.provenance.manifest import StageRecord
from kd.resume.checkpoints import CheckpointFolder
from kd.resume.finished import is_done, settle
from kd.teacher.answers import Answer, read_answers
from kd.training.batches import Batch, Collator, total_steps
from kd.training.code import distillation_modules
from kd.training.examples import Example, ExampleSet, build_examples, one_part, subset
from kd.training.head import require_linear_head
from kd.training.live import LiveTeacher
from kd.training.loop import Loop, Material
from kd.training.objective import LiveCollator, Objective
from kd.training.responses import ResponsePolicy, build_policy
from kd.training.sampling import Sampler
from kd.training.setup import build_setup
from kd.training.student import prepare_student, restore_trained


def distill(
    spec: DistillSpec,
    inputs: dict[str, Path],
    out: Path,
    checkpoints: Path,
) -> None:
    """Train the student and write `out/model/` and `out/train.jsonl`.

    Args:
        spec: method, training, fraction and seed.
        inputs: `student` (model folder), `train` and `validation` (rows), `answers`, `logits`
            (store) where the method reads it, and `teacher` (model folder) where it runs the
            teacher or reads its tokens.
        out: the run's folder.
        checkpoints: folder for checkpoints, which are removed on success.

    Raises:
        ArtifactError: an input is missing or damaged.
        LossError: the loss is not defined for this pair of models.
        TrainingError: the loss is not finite.
    """
    code = distillation_modules(spec.method.loss)
    pick_device()
    record = StageRecord("distill", spec, inputs, code, external=("student", "teacher"))
    ranks = join(spec.training.processes, pick_device)
    folder = CheckpointFolder(checkpoints, record.fingerprint)
    outputs = out / "model", out / "train.jsonl"
    if ranks.gathered(ranks.first and is_done(record, folder.path, *outputs))[0]:
        ranks.close()
        return
    loop, tokenizer, counts = _build(spec, inputs, record, ranks)
    what = f"{spec.method.loss} on {spec.dataset}, seed {spec.seed}"
    with progress(what, loop.total_steps) if ranks.first else nullcontext(_silent) as advance:
        loop.run(folder, advance)
    ranks.close()
    if not ranks.first:
        return
    _write_model(loop, tokenizer, record.inputs["student"]["sha256"], out / "model")
    curve = "".join(canonical_json(entry) + "\n" for entry in loop.history)
    write_text(out / "train.jsonl", curve)
    notes: dict[str, Any] = {
        "counts": counts,
        "steps": loop.total_steps,
        "selected": loop.best,
        "seconds_per_step": round(loop.seconds / max(loop.timed_steps, 1), 6),
        "cpu_seconds_per_step": round(loop.cpu_seconds / max(loop.timed_steps, 1), 6),
    }
    record.write(*outputs, notes=notes)
    settle(record, folder.path, *outputs)


def _silent(step: int, note: str) -> None:
    """One rank is enough to tell how far all are."""


def _build(
    spec: DistillSpec, inputs: dict[str, Path], record: StageRecord, ranks: Ranks
) -> tuple[Loop, PreTrainedTokenizerBase, dict[str, Any]]:
    """Models, data and objective of a run, ready to train, with the counts of its rows."""
    model, tokenizer = load_model(inputs["student"])
    answers = read_answers(inputs["answers"])
    teacher = _open_teacher(spec, inputs, answers, tokenizer)
    store = _open_store(spec, inputs, record)
    _require_one_vocabulary(spec, store, teacher, model, tokenizer)
    live = teacher if runs_teacher(spec.method) else None
    if live is not None and loss_info(spec.method.loss).needs_live_teacher:
        for side in (model, live.model):  # other implementations do not return attentions
            side.set_attn_implementation("eager")
    splits, counts = _examples(spec, inputs, answers, model, tokenizer)
    if live is not None:
        for examples in splits.values():
            live.collate(examples)  # refuses, before anything is trained, what will not fit
    steps = total_steps(len(splits["train"]), spec.training)
    objective = Objective(
        spec.method,
        eos_token_id=tokenizer.eos_token_id,
        shift=not model.config.is_encoder_decoder,
        setup=_setup(spec, model, tokenizer, teacher, steps),
        live=live,
        fused_head=spec.training.fused_head,
        max_logit_error=spec.max_logit_error,
    )
    if spec.training.fused_head:
        require_linear_head(model)
    lora = spec.method.lora
    adapters = None if lora is None else Adapters(model, lora, spec.seed)
    prepare_student(model, spec.training)
    collate = _collator(model, tokenizer, store, live)
    loop = Loop(
        model,
        objective.to(model.device),
        Material(splits["train"], splits["validation"], collate),
        training=spec.training,
        seed=spec.seed,
        policy=_policy(spec, tokenizer, live, steps),
        ranks=ranks,
        adapters=adapters,
    )
    return loop, tokenizer, counts


def _open_store(
    spec: DistillSpec, inputs: dict[str, Path], record: StageRecord
) -> LogitReader | None:
    if not reads_logits(spec.method):
        return None
    if "logits" not in inputs:
        raise ArtifactError(
            f"loss '{spec.method.loss}' needs the teacher's logits. Give --logits FOLDER."
        )
    store = LogitReader(inputs["logits"])
    teacher = record.inputs.get("teacher", {"sha256": None})
    store.require_origin(answers=record.inputs["answers"]["sha256"], model=teacher["sha256"])
    return store


def _open_teacher(
    spec: DistillSpec,
    inputs: dict[str, Path],
    answers: Sequence[Answer],
    tokenizer: PreTrainedTokenizerBase,
) -> LiveTeacher | None:
    if not reads_teacher_model(spec.method):
        return None
    if "teacher" not in inputs:
        raise ArtifactError(
            f"loss '{spec.method.loss}' with responses '{spec.method.responses.policy}' needs the "
            "teacher itself. Give --teacher FOLDER."
        )
    prompts = {answer.id: answer.prompt for answer in answers}
    return LiveTeacher(inputs["teacher"], prompts, tokenizer, spec.teacher_load)


def _require_one_vocabulary(
    spec: DistillSpec,
    store: LogitReader | None,
    teacher: LiveTeacher | None,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    if spec.method.loss == "none" or not loss_info(spec.method.loss).same_vocabulary:
        return
    shared = teacher.same_tokenizer if teacher is not None else True
    widths = {model.config.vocab_size}
    if store is not None:
        shared = shared and store.index.tokenizer == vocabulary_digest(tokenizer)
        widths.add(store.index.vocabulary)
    if teacher is not None:
        widths.add(teacher.model.config.vocab_size)
    if shared and len(widths) > 1:
        raise LossError(
            f"loss '{spec.method.loss}' compares column by column, and the tokenizers agree, but "
            f"the output layers have {' and '.join(map(str, sorted(widths)))} columns: resize one "
            "model's embeddings to the other's width."
        )
    if not shared:
        raise LossError(
            f"loss '{spec.method.loss}' needs one shared tokenizer, but the student's tokens are "
            "not the teacher's. Share the tokenizer, or name a loss that works across tokenizers."
        )


def _setup(
    spec: DistillSpec,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    teacher: LiveTeacher | None,
    steps: int,
) -> Setup | None:
    if spec.method.loss == "none":
        return None
    return build_setup(loss_info(spec.method.loss), model, tokenizer, teacher, steps)


def _collator(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    store: LogitReader | None,
    live: LiveTeacher | None,
) -> Callable[[Sequence[Example]], Batch]:
    encoder_decoder = bool(model.config.is_encoder_decoder)
    collate = Collator(tokenizer.pad_token_id, encoder_decoder=encoder_decoder, store=store)
    return collate if live is None else LiveCollator(collate, live)


def _policy(
    spec: DistillSpec, tokenizer: PreTrainedTokenizerBase, live: LiveTeacher | None, steps: int
) -> ResponsePolicy:
    settings = spec.method.responses
    sampler = None
    if live is not None and isinstance(settings, OnPolicy):
        sampler = Sampler(tokenizer, settings, exact=live.same_tokenizer, seed=spec.seed)
    return build_policy(settings, sampler, steps, spec.seed)


def _examples(
    spec: DistillSpec,
    inputs: dict[str, Path],
    answers: Sequence[Answer],
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
) -> tuple[dict[str, list[Example]], dict[str, Any]]:
    chosen = {
        "train": one_part(
            subset(_of_split(answers, "train"), spec.fraction, spec.seed),
            spec.training.replicas,
            spec.seed,
        ),
        "validation": _of_split(answers, "validation"),
    }
    responses = spec.method.responses
    sets: dict[str, ExampleSet] = {}
    for split, rows_of_split in chosen.items():
        rows = {row.id: row for row in read_rows(inputs[split])}
        sets[split] = build_examples(
            rows,
            rows_of_split,
            tokenizer,
            encoder_decoder=bool(model.config.is_encoder_decoder),
            max_length=min(spec.training.max_length, context_length(model, tokenizer)),
            room=responses.max_new_tokens if isinstance(responses, OnPolicy) else 0,
        )
    counts = {split: found.counts() for split, found in sets.items()}
    return {split: found.examples for split, found in sets.items()}, counts


def _of_split(answers: Sequence[Answer], split: str) -> list[Answer]:
    return [answer for answer in answers if answer.split == split]


def _write_model(loop: Loop, tokenizer: PreTrainedTokenizerBase, base: str, out: Path) -> None:
    restore_trained(loop.model, loop.selected_weights())
    with atomic_directory(out) as staging:
        if loop.adapters is not None:
            loop.adapters.write(tokenizer, base, staging)
            return
        loop.model.save_pretrained(staging)
        tokenizer.save_pretrained(staging)
