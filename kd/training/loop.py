"""The training loop: steps, validations, the best student so far, and checkpoints."""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from kd.errors import TrainingError
from kd.experiment.schema import Training
from kd.interruption import postponed
from kd.models.adapters import Adapters
from kd.parallel.ranks import Ranks
from kd.resume.checkpoints import (
    Checkpoint,
    CheckpointFolder,
    optimizer_tensors,
    restore_optimizer,
    unshared,
)
from kd.resume.random_states import random_tensors, random_values, restore_random
from kd.resume.schedule import CheckpointSchedule
from kd.training.batches import Batch, batch_indices, in_order, total_steps
from kd.training.evaluation import Evaluator
from kd.training.examples import Example
from kd.training.memory import out_of_memory
from kd.training.objective import Objective
from kd.training.optimisation import build_optimizer, build_scheduler
from kd.training.responses import ResponsePolicy
from kd.training.student import restore_trained, trained_weights

Record = dict[str, Any]


@dataclass(frozen=True)
class Material:
    """What a run learns from and is selected by."""

    train: Sequence[Example]
    validation: Sequence[Example]
    collate: Callable[[Sequence[Example]], Batch]


class Loop:
    """One student's training, resumable at any step."""

    def __init__(
        self,
        model: PreTrainedModel,
        objective: Objective,
        material: Material,
        *,
        training: Training,
        seed: int,
        policy: ResponsePolicy | None = None,
        ranks: Ranks | None = None,
        adapters: Adapters | None = None,
    ) -> None:
        """Set up optimiser and schedule; nothing is trained yet.

        Every one of several `ranks` runs such a loop, and ends with the same student.
        """
        self.model = model
        self.adapters = adapters
        self._objective = objective
        self._material = material
        self._training = training
        self._seed = seed
        self._policy = policy or ResponsePolicy()
        self._ranks = ranks or Ranks()
        self.total_steps = total_steps(len(material.train), training)
        self.seconds = 0.0  # in the steps of this process; validations do not count
        self.cpu_seconds = 0.0
        self.timed_steps = 0
        self._validate_every = max(1, math.ceil(self.total_steps / training.validations))
        self._evaluator = Evaluator(
            model, objective, lambda rows: self._material.collate(rows), training, self._ranks
        )
        self._optimizer = build_optimizer(self._trained(), training)
        self._scheduler = build_scheduler(self._optimizer, training, self.total_steps)
        self.step = 0
        self.history: list[Record] = []
        self.best: Record | None = None
        self._best_weights: dict[str, Tensor] = {}
        torch.manual_seed(seed + self._ranks.rank)  # no two ranks drop out the same

    def run(self, checkpoints: CheckpointFolder, advance: Callable[[int, str], None]) -> None:
        """Train to the end from the newest checkpoint, if there is one.

        Raises:
            TrainingError: the loss or the gradient is not finite, or memory is not enough.
            Interrupted: a signal asked the process to stop; its last step is kept.
        """
        schedule = CheckpointSchedule(checkpoints, self._training.checkpoint_steps, self._ranks)
        found = schedule.newest()
        if found is not None:
            self._restore(found)
        with postponed():
            while self.step < self.total_steps:
                values = self._step()
                schedule.after(self.step, self._checkpoint)
                advance(self.step, f"loss {values['loss']:.3f}")

    def _step(self) -> dict[str, float]:
        """One optimiser step, and a validation where one is due.

        Raises:
            TrainingError: it does not fit into memory.
        """
        started, used = time.perf_counter(), time.process_time()
        try:
            values = self._train_step()
            self.seconds += time.perf_counter() - started
            self.cpu_seconds += time.process_time() - used
            self.timed_steps += 1
            if self.step % self._validate_every == 0 or self.step == self.total_steps:
                self._validate()
        except torch.OutOfMemoryError:
            rows, length = self._evaluator.shape
            raise TrainingError(out_of_memory(self.model, self._training, rows, length)) from None
        return values

    def _trained(self) -> list[torch.nn.Parameter]:
        every = [*self.model.parameters(), *self._objective.parameters()]
        return [parameter for parameter in every if parameter.requires_grad]

    def selected_weights(self) -> Mapping[str, Tensor]:
        """The weights of the selected student: the best validation loss, or the last step."""
        if self._training.select == "last":
            return trained_weights(self.model)
        return self._best_weights

    def _train_step(self) -> dict[str, float]:
        training = self._training
        indices = batch_indices(
            len(self._material.train), training.batch_size, self._seed, self.step
        )
        given = [self._material.train[index] for index in indices]
        examples = self._policy.prepare(self.model, given, self.step)
        self.model.train()
        self._objective.train()
        certify = self.step % training.certificate_steps == 0
        rate = self._scheduler.get_last_lr()[0]
        self._optimizer.zero_grad(set_to_none=True)
        found = self._evaluator.learn(
            examples,
            lambda parts: self._require_finite(parts, "loss", examples),
            certify=certify,
        )
        limit = training.max_grad_norm or math.inf
        norm = torch.nn.utils.clip_grad_norm_(self._trained(), limit).item()
        self._require_finite({"gradient norm": norm}, "gradient norm", examples)
        self._optimizer.step()
        self._objective.step(found.parts)
        if self.step + 1 < self.total_steps:
            self._scheduler.step()
        self.step += 1
        self.history.append(
            {"step": self.step, **found.parts, "gradient_norm": norm, "learning_rate": rate}
            | found.exactness
        )
        return found.parts

    def _require_finite(
        self, values: Mapping[str, float], what: str, examples: Sequence[Example]
    ) -> None:
        """Refuse a step whose first value, of which the others are parts, is not finite."""
        (_, value), *parts = values.items()
        if not math.isfinite(value):
            rows = ", ".join(example.id for example in examples)
            of = "; " * bool(parts) + ", ".join(f"{name} {part:.4g}" for name, part in parts)
            raise TrainingError(
                f"the {what} is {value} at step {self.step + 1} of {self.total_steps} "
                f"(rows {rows}{of}). Lower training.learning_rate or the method's weight; the last "
                f"checkpoint (one every {self._training.checkpoint_steps} steps) is kept."
            )

    @torch.inference_mode()
    def _validate(self) -> None:
        """Mean objective over the validation rows; the trained objective itself, not another.

        Each batch counts by its rows. Batches are the same at every validation, so their means
        are comparable.
        """
        self.model.eval()  # type: ignore[no-untyped-call]
        self._objective.eval()  # a loss with a schedule is compared at the schedule's end
        rows = self._material.validation
        sums: dict[str, float] = {}
        batches = list(in_order(len(rows), self._training.batch_size))
        for indices in self._ranks.share(batches):
            examples = [rows[index] for index in indices]
            values = self._evaluator.measure(examples)
            self._require_finite(values, "validation loss", examples)
            for name, value in values.items():
                sums[name] = sums.get(name, 0.0) + value * len(indices)
        sums = _added(self._ranks.gathered(sums))
        means = {f"validation_{name}": value / len(rows) for name, value in sums.items()}
        record = {"step": self.step, **means}
        self.history.append(record)
        self._policy.validated(record["validation_loss"])
        if self.best is None or record["validation_loss"] < self.best["validation_loss"]:
            self.best = record
            self._best_weights = unshared(trained_weights(self.model))

    def _checkpoint(self) -> Checkpoint:
        states = self._ranks.gathered((random_tensors(), random_values()))
        if not self._ranks.first:  # copies would cost memory for nothing
            return Checkpoint(self.step, {}, {})
        of_others = {f"random-{rank}": tensors for rank, (tensors, _) in enumerate(states) if rank}
        return Checkpoint(
            step=self.step,
            tensors={
                "model": unshared(trained_weights(self.model)),
                "best": unshared(self._best_weights),
                "objective": unshared(self._objective.state_dict()),
                "optimizer": optimizer_tensors(self._optimizer),
                "random": states[0][0],
                **of_others,
            },
            values={
                "scheduler": self._scheduler.state_dict(),
                "groups": self._optimizer.state_dict()["param_groups"],
                "history": self.history,
                "best": self.best,
                "policy": self._policy.state(),
                "random": states[0][1],
                **{f"random-{rank}": values for rank, (_, values) in enumerate(states) if rank},
            },
        )

    def _restore(self, checkpoint: Checkpoint) -> None:
        tensors, values = checkpoint.tensors, checkpoint.values
        restore_trained(self.model, tensors["model"])
        self._best_weights = dict(tensors["best"])
        self._objective.load_state_dict(tensors["objective"])
        self._policy.restore(values["policy"])
        restore_optimizer(self._optimizer, tensors["optimizer"], values["groups"])
        self._scheduler.load_state_dict(values["scheduler"])
        own = f"random-{self._ranks.rank}" if self._ranks.rank else "random"
        restore_random(tensors[own], values[own])
        self.step = checkpoint.step
        self.history, self.best = values["history"], values["best"]


def _added(sums: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The sums of all ranks; one may have had nothing to add."""
    total: dict[str, float] = {}
    for one in sums:
        for name, value in one.items():
            total[name] = total.get(name, 0.0) + value
    return total
