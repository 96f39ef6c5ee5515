"""Training a micro model from nothing on rows of its world.

It is trained on the answers of its sequences (`kd.models.corpus`), and more lightly on the
rest of the text, so that it is a language model of its world too. Nothing but `State` changes
between two steps.
"""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch.nn import functional as F
from transformers import PreTrainedModel

from kd.data.prompts import build_prompt
from kd.data.rows import Row
from kd.errors import TrainingError
from kd.experiment.models import MicroModel, Pretraining
from kd.interruption import postponed
from kd.models.architectures import Vocabulary, build_model
from kd.models.corpus import Batch, Corpus
from kd.models.tokenizers import train_tokenizer
from kd.provenance.files import atomic_directory
from kd.resume.checkpoints import (
    Checkpoint,
    CheckpointFolder,
    optimizer_tensors,
    restore_optimizer,
    unshared,
)
from kd.resume.random_states import random_tensors, random_values, restore_random
from kd.resume.schedule import CheckpointSchedule

WARMUP = 0.1  # share of the steps
WEIGHT_DECAY = 0.01
MAX_GRAD_NORM = 1.0
CHECKPOINT_STEPS = 500

Progress = Callable[[int, float], None]  # step (from 1), loss


@dataclass
class State:
    """All that changes while a model is trained."""

    model: PreTrainedModel
    optimizer: torch.optim.Optimizer
    scheduler: torch.optim.lr_scheduler.LRScheduler
    step: int = 0
    curve: list[dict[str, float]] = field(default_factory=list)  # step and loss


def pretrain(
    spec: MicroModel,
    name: str,
    rows: Mapping[str, Sequence[Row]],
    out: Path,
    *,
    progress: Progress | None = None,
    checkpoints: CheckpointFolder | None = None,
) -> None:
    """Train tokenizer and model `name` on `rows` (by dataset); write the folder `out`.

    The folder has the hub's format, and `pretrain.jsonl` with the loss of each step.
    The same arguments give the same bytes on one machine type and thread count, and a
    training that goes on from a checkpoint gives those of one that never stopped.

    Raises:
        DataError: a dataset has too few rows, or none that fit the model's context.
        TrainingError: the loss is not finite.
        Interrupted: a signal asked the process to stop; its last step is kept.
    """
    rows = {dataset: part[: spec.pretraining.rows] for dataset, part in rows.items()}
    tokenizer = train_tokenizer(spec.tokenizer, _texts(rows))
    tokenizer.model_max_length = spec.context
    corpus = Corpus(spec, tokenizer, rows)
    model = build_model(
        spec.architecture,
        spec.size,
        Vocabulary.of(tokenizer),
        context=spec.context,
        seed=spec.seed,
    )
    state = new_state(model, spec.pretraining)
    schedule = CheckpointSchedule(checkpoints, CHECKPOINT_STEPS)
    found = schedule.newest()
    if found is not None:
        _restore(state, found)
    with postponed():
        while state.step < spec.pretraining.steps:
            loss = train_step(state, corpus.batch(state.step), name)
            state.curve.append({"step": state.step, "loss": round(loss, 6)})
            schedule.after(state.step, lambda: _checkpoint(state))
            if progress is not None:
                progress(state.step, loss)
    with atomic_directory(out) as folder:
        state.model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        lines = "".join(json.dumps(point) + "\n" for point in state.curve)
        (folder / "pretrain.jsonl").write_text(lines, encoding="utf-8")


def new_state(model: PreTrainedModel, settings: Pretraining) -> State:
    """AdamW with a linear warm-up and a cosine decay to zero."""
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=settings.learning_rate, weight_decay=WEIGHT_DECAY
    )
    warmup = max(1, round(WARMUP * settings.steps))

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / warmup
        return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, settings.steps - warmup)))

    return State(model, optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, factor))


def _checkpoint(state: State) -> Checkpoint:
    return Checkpoint(
        step=state.step,
        tensors={
            "model": unshared(state.model.state_dict()),
            "optimizer": optimizer_tensors(state.optimizer),
            "random": random_tensors(),
        },
        values={
            "scheduler": state.scheduler.state_dict(),
            "groups": state.optimizer.state_dict()["param_groups"],
            "curve": state.curve,
            "random": random_values(),
        },
    )


def _restore(state: State, checkpoint: Checkpoint) -> None:
    tensors, values = checkpoint.tensors, checkpoint.values
    state.model.load_state_dict(tensors["model"])
    restore_optimizer(state.optimizer, tensors["optimizer"], values["groups"])
    state.scheduler.load_state_dict(values["scheduler"])
    restore_random(tensors["random"], values["random"])
    state.step, state.curve = checkpoint.step, values["curve"]


def train_step(state: State, batch: Batch, name: str) -> float:
    """One optimiser step; returns the weighted mean loss (nats per token)."""
    state.model.train()
    losses = F.cross_entropy(
        _logits(state.model, batch).flatten(0, 1), batch.targets.flatten(), reduction="none"
    )
    loss = (losses * batch.weights.flatten()).sum() / batch.weights.sum()
    value = loss.item()
    if not math.isfinite(value):
        raise TrainingError(
            f"Pretraining '{name}' diverged at step {state.step + 1} (loss {value}). "
            "Lower its 'learning_rate'."
        )
    state.optimizer.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    torch.nn.utils.clip_grad_norm_(state.model.parameters(), MAX_GRAD_NORM)
    state.optimizer.step()
    state.scheduler.step()
    state.step += 1
    return value


def _logits(model: PreTrainedModel, batch: Batch) -> torch.Tensor:
    """Next-token logits [B, T, V] at the positions of `batch.targets`."""
    if model.config.is_encoder_decoder:
        start = torch.full_like(batch.targets[:, :1], model.config.decoder_start_token_id)
        decoder = torch.cat([start, batch.targets[:, :-1]], dim=1)
        output = model(
            input_ids=batch.inputs, attention_mask=batch.attention, decoder_input_ids=decoder
        )
    else:
        output = model(input_ids=batch.inputs)
    logits: torch.Tensor = output.logits
    return logits


def _texts(rows: Mapping[str, Sequence[Row]]) -> list[str]:
    return [
        f"{build_prompt(row, [])} {answer}\n"
        for dataset in sorted(rows)
        for row in rows[dataset]
        for answer in row.answers
    ]
