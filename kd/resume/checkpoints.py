"""Checkpoints: all a run needs to go on as if it had never stopped.

A checkpoint is a folder of safetensors files and a `state.json` that lists their digests, and
has its own. It appears atomically; the newest valid one wins, and a damaged one is passed over
with a warning. The folder's name carries the run's fingerprint, so that a changed
specification never resumes.
"""

import hashlib
import json
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from kd.provenance.canonical import file_digest
from kd.provenance.files import atomic_directory

STATE = "state.json"
KEPT = 2


@dataclass(frozen=True)
class Checkpoint:
    """Named groups of tensors (`model`, `optimizer`, …) and plain values at a step."""

    step: int
    tensors: Mapping[str, Mapping[str, Tensor]]
    values: Mapping[str, Any]


class CheckpointFolder:
    """The checkpoints of one run; the newest is kept, and the one before it in its stead."""

    def __init__(self, root: Path, fingerprint: str) -> None:
        """Use `root/<fingerprint>`; nothing is created before the first save.

        One process at a time: what a killed one left half written is removed at the next save.
        """
        self.path = root / fingerprint[:16]

    def save(self, checkpoint: Checkpoint) -> None:
        """Write `checkpoint`, then remove older ones, and damaged ones of later steps.

        What cannot be removed at once (a network file system keeps files that are open) stays
        until the next save.
        """
        for stale in self.path.glob(".*"):  # a save that was killed
            shutil.rmtree(stale, ignore_errors=True)
        with atomic_directory(self.path / _name(checkpoint.step)) as staging:
            for group, tensors in checkpoint.tensors.items():
                contiguous = {name: tensor.contiguous() for name, tensor in tensors.items()}
                save_file(contiguous, staging / f"{group}.safetensors")
            files = sorted(staging.iterdir())
            state = {
                "step": checkpoint.step,
                "values": checkpoint.values,
                "files": {file.name: file_digest(file) for file in files},
            }
            # Keys keep their order: what is written from these values must not change.
            signed = {"digest": _digest(state), "state": state}
            (staging / STATE).write_text(json.dumps(signed), encoding="utf-8")
        reached = [folder for folder in self._all() if folder.name <= _name(checkpoint.step)]
        for other in set(self._all()) - set(reached[:KEPT]):
            shutil.rmtree(other, ignore_errors=True)

    def newest(self) -> Checkpoint | None:
        """The newest checkpoint that is whole, or None."""
        for folder in self._all():
            try:
                return _read(folder)
            except (OSError, ValueError, KeyError, TypeError) as error:
                print(f"warning: skipping damaged checkpoint {folder}: {error}", file=sys.stderr)
        return None

    def _all(self) -> list[Path]:
        return sorted(self.path.glob("step-*"), reverse=True)


def _name(step: int) -> str:
    return f"step-{step:08d}"


def _digest(state: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(state).encode()).hexdigest()


def _read(folder: Path) -> Checkpoint:
    signed = json.loads((folder / STATE).read_text(encoding="utf-8"))
    state = signed["state"]
    if signed["digest"] != _digest(state):
        raise ValueError(f"{STATE} does not match its digest")
    for name, expected in state["files"].items():
        if file_digest(folder / name) != expected:
            raise ValueError(f"{name} does not match its digest")
    tensors = {Path(name).stem: load_file(folder / name) for name in state["files"]}
    return Checkpoint(state["step"], tensors, state["values"])


def unshared(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Copies of `weights` in main memory.

    safetensors refuses tensors that share memory, as tied embeddings do, and a GPU may have no
    room for copies.
    """
    return {name: weight.detach().to("cpu", copy=True) for name, weight in weights.items()}


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The optimiser's per-parameter state as flat named tensors."""
    state = optimizer.state_dict()["state"]
    return {
        f"{index}.{name}": value
        for index, entries in state.items()
        for name, value in entries.items()
    }


def restore_optimizer(
    optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor], groups: list[dict[str, Any]]
) -> None:
    """Put back what `optimizer_tensors` and the parameter groups held."""
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        index, name = key.split(".", 1)
        state.setdefault(int(index), {})[name] = value
    optimizer.load_state_dict({"state": state, "param_groups": groups})
