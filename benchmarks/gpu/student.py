"""A student of 410 million weights: from stored logits, and with its teacher at every step."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import torch
from loss_baselines import plain

from benchmarks.gpu.device import Figure, Limits, Machine
from benchmarks.gpu.models import examples, parameters, student, teacher
from kd.experiment.methods import Method
from kd.experiment.schema import Training
from kd.logits import LogitReader, LogitWriter
from kd.training.batches import Batch, Collator
from kd.training.loop import Loop, Material
from kd.training.objective import Objective, Terms

STORED, LIVE = "stored logits", "teacher at every step"


def figures(machine: Machine, limits: Limits) -> Iterator[Figure]:
    sizes = machine.sizes
    rows = examples(machine, sizes.batch * sizes.steps, sizes.student_vocabulary)
    with tempfile.TemporaryDirectory() as folder:
        store = _store(machine, rows, Path(folder) / "store")
        for scheme in (STORED, LIVE):

            def run(size: int, scheme: str = scheme) -> tuple[float, int]:
                return _steps(machine, rows, store, scheme, size)

            (seconds, weights), size, note = machine.fitting(run, sizes.batch)
            tokens = sizes.batch * (sizes.prompt + sizes.answer + 1)
            work = 6 * weights * tokens
            if scheme == LIVE:
                work += 2 * _teacher_weights(machine) * tokens
            case = f"{scheme}, {size} of {sizes.batch} rows at a time"
            best = limits.flops / work
            yield Figure("student", case, "steps", 1 / seconds, "steps/s", best, note)
            yield Figure("student", case, "peak memory", machine.peak(), "GiB")


def _teacher_weights(machine: Machine) -> int:
    shape = machine.sizes.teacher
    layer = 4 * shape["hidden_size"] ** 2 + 3 * shape["hidden_size"] * shape["intermediate_size"]
    embedded = 2 * machine.sizes.teacher_vocabulary * shape["hidden_size"]
    return shape["num_hidden_layers"] * layer + embedded


def _store(machine: Machine, rows, folder: Path) -> LogitReader:
    """Made-up distributions as sharp as those of a trained model; times do not depend on more."""
    wide = machine.sizes.teacher_vocabulary
    with LogitWriter(folder, vocabulary=wide, epsilon=1e-2, cap=1000) as writer:
        for row in rows:
            answer = len(row.target) - 1
            logits = 6 * torch.randn(answer, wide, device=machine.device)
            tokens = torch.tensor(row.target[:-1]) % wide
            writer.add(row.id, tokens, logits, ends=torch.arange(answer))
    return LogitReader(folder)


class _Authors(Objective):
    """Cross-entropy and ULD on dense logits of a teacher that runs at every step."""

    def __init__(self, model) -> None:
        super().__init__(Method(loss="none"), eos_token_id=0, shift=True)
        self._teacher = [model]  # no submodule: it is not trained

    def forward(self, model, batch: Batch, counts=None, *, certify=False) -> Terms:
        batch = batch.to(model.device)
        (teacher_model,) = self._teacher
        with torch.no_grad():
            ids = batch.inputs["input_ids"] % teacher_model.config.vocab_size
            given = teacher_model(ids, attention_mask=batch.inputs["attention_mask"]).logits
        logits = model(**batch.inputs).logits
        cross_entropy = self._cross_entropy(logits, None, batch.labels)
        distillation = plain("uld", logits.float(), given, batch.scored(0))
        share = 1.0 if counts is None else (batch.labels != -100).sum() / counts.cross_entropy
        return Terms((cross_entropy + distillation) * share, cross_entropy, distillation)


def _steps(machine: Machine, rows, store: LogitReader, scheme: str, size: int):
    """Seconds of a step with `size` rows at a time, the effective batch being always the same."""
    sizes, model = machine.sizes, student(machine)
    micro = None if size == sizes.batch else size
    training = Training(
        learning_rate=1e-5,
        batch_size=sizes.batch,
        epochs=1,
        precision="bfloat16" if machine.on_gpu else "float32",
        micro_batch=micro,
        fused_head=scheme == STORED,
    )
    if scheme == STORED:
        objective = Objective(Method(loss="uld"), eos_token_id=0, shift=True, fused_head=True)
        collate = Collator(0, encoder_decoder=False, store=store)
    else:
        objective = _Authors(teacher(machine))
        collate = Collator(0, encoder_decoder=False, store=None)
    loop = Loop(model, objective, Material(rows, rows[:1], collate), training=training, seed=0)
    count = sizes.steps - 2
    return machine.seconds(loop._train_step, repeats=max(count, 1)), parameters(model)
