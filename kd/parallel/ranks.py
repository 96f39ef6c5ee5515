"""What a process of a training knows of the others: nothing, or a group joined by `accelerate`."""

import os
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from datetime import timedelta
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from kd.errors import TrainingError

T = TypeVar("T")


class Ranks:
    """One process that trains alone. Every method is what a group's is for a group of one."""

    rank = 0
    count = 1

    @property
    def first(self) -> bool:
        """Whether this process writes."""
        return self.rank == 0

    def share(self, items: Sequence[T]) -> Sequence[T]:
        """The items of this rank: every `count`-th, so that their numbers differ by one at most."""
        return items[self.rank :: self.count]

    def wrap(self, module: nn.Module, *, partly: bool = False) -> nn.Module:
        """`module` with gradients that are averaged over the ranks in each backward pass.

        `partly`: some passes leave out some of its weights.
        """
        return module

    def apart(self, module: nn.Module) -> AbstractContextManager[Any]:
        """A block in which gradients of the wrapped `module` only add up on this rank."""
        return nullcontext()

    def summed(self, values: Sequence[float]) -> list[float]:
        """Sums over the ranks, in double precision."""
        return list(values)

    def any(self, flags: Sequence[bool]) -> list[bool]:
        """Whether a flag is set on any rank."""
        return [value > 0 for value in self.summed([float(flag) for flag in flags])]

    def gathered(self, item: T) -> list[T]:
        """The item of each rank, by rank."""
        return [item]

    def close(self) -> None:
        """Wait for the others and leave the group."""


class Group(Ranks):
    """One of several processes."""

    def __init__(self, accelerator: Any) -> None:
        """Take part in the group that `accelerator` (`accelerate.Accelerator`) has joined."""
        self._accelerator = accelerator
        self.rank = accelerator.process_index
        self.count = accelerator.num_processes

    def wrap(self, module: nn.Module, *, partly: bool = False) -> nn.Module:
        """See `Ranks.wrap`; the weights become those of rank 0."""
        self._accelerator.ddp_handler.find_unused_parameters = partly
        wrapped: nn.Module = self._accelerator.prepare_model(module)
        return wrapped

    def apart(self, module: nn.Module) -> AbstractContextManager[Any]:
        """See `Ranks.apart`."""
        block: AbstractContextManager[Any] = self._accelerator.no_sync(module)
        return block

    def summed(self, values: Sequence[float]) -> list[float]:
        """See `Ranks.summed`."""
        tensor = torch.tensor(values, dtype=torch.float64, device=self._accelerator.device)
        total: Tensor = self._accelerator.reduce(tensor, reduction="sum")
        return [float(value) for value in total.tolist()]

    def gathered(self, item: T) -> list[T]:
        """See `Ranks.gathered`."""
        found: list[Any] = [None] * self.count
        torch.distributed.all_gather_object(found, item)
        return found

    def close(self) -> None:
        """See `Ranks.close`."""
        self._accelerator.wait_for_everyone()
        self._accelerator.end_training()


def join(processes: int, device: Callable[[], torch.device]) -> Ranks:
    """The group of `processes` that this process was started in, or one alone.

    Args:
        processes: as `training.processes` says.
        device: what the models run on.

    Raises:
        TrainingError: it was started in another number, or `accelerate` is not installed.
    """
    if processes == 1:
        return Ranks()
    started = int(os.environ.get("WORLD_SIZE", "1"))
    if started != processes:
        raise TrainingError(
            f"'training.processes' is {processes}, but {started} were started. `kd distill` starts "
            f"them; by hand: accelerate launch --num_processes {processes} -m kd.cli distill …"
        )
    try:
        from accelerate import Accelerator, DistributedDataParallelKwargs
        from accelerate.utils import InitProcessGroupKwargs
    except ImportError:
        raise TrainingError(
            "'training.processes' needs accelerate: pip install -c constraints.txt -e '.[gpu]'"
        ) from None
    # A rank that validates, or saves, keeps the others waiting.
    patience = InitProcessGroupKwargs(timeout=timedelta(hours=2))
    on_cpu = device().type == "cpu"
    handlers = [DistributedDataParallelKwargs(), patience]
    return Group(Accelerator(cpu=on_cpu, kwargs_handlers=handlers))
