"""ULD and KL on the rows of answers, at three widths, against plain and published ones."""

from collections.abc import Callable, Iterator

import torch
from loss_baselines import authors, gold, plain
from torch import Tensor

from benchmarks.gpu.device import Figure, Limits, Machine
from kd.losses import distillation_loss

SHARPNESS = 6.0  # about two nats of entropy


def figures(machine: Machine, limits: Limits) -> Iterator[Figure]:
    for own, other in machine.sizes.vocabularies:
        for name, call in _implementations(own, other):

            def run(rows: int, call=call, own: int = own, other: int = other) -> float:
                return _seconds(machine, call, rows, own, other)

            try:
                seconds, rows, note = machine.fitting(run, machine.sizes.rows)
            except ImportError as error:
                yield Figure(
                    "losses", f"{name}, {own}/{other}", "left out", 0.0, "", note=str(error)
                )
                continue
            # Both sides are read once and the gradient is written once.
            least = rows * (2 * own + other) * 4 / limits.bandwidth
            case = f"{name}, {own}/{other}, {rows} rows"
            yield Figure(
                "losses", case, "forward and backward", 1e3 * seconds, "ms", 1e3 * least, note
            )
            yield Figure("losses", case, "peak memory", machine.peak(), "GiB")


def _implementations(own: int, other: int) -> Iterator[tuple[str, Callable[..., Tensor]]]:
    yield "ULD", lambda student, teacher, labels: _ours("uld", student, teacher, labels)
    yield "ULD, plain", lambda student, teacher, labels: plain("uld", student, teacher, labels)
    yield "ULD, authors'", _authors
    yield "ULD, TRL's", lambda student, teacher, labels: gold()(student, teacher, labels)
    if own == other:
        yield "KL", lambda student, teacher, labels: _ours("forward_kl", student, teacher, labels)
        yield "KL, torch's", _torch_kl


def _ours(name: str, student: Tensor, teacher: Tensor, labels: Tensor) -> Tensor:
    return distillation_loss(name, student, teacher, labels, labels)


def _authors(student: Tensor, teacher: Tensor, labels: Tensor) -> Tensor:
    return authors(student.clone(), teacher.clone(), 0, labels.shape[1] - 1)


def _torch_kl(student: Tensor, teacher: Tensor, labels: Tensor) -> Tensor:
    rows, given = student[:, :-1].flatten(0, 1), teacher[:, :-1].flatten(0, 1)
    found = torch.nn.functional.kl_div(
        rows.log_softmax(-1), given.log_softmax(-1), log_target=True, reduction="batchmean"
    )
    return found


def _seconds(machine: Machine, call, rows: int, own: int, other: int) -> float:
    torch.manual_seed(0)
    batch = max(1, rows // 64)
    length = max(2, rows // batch) + 1  # the last position predicts nothing
    student = SHARPNESS * torch.randn(batch, length, own, device=machine.device)
    teacher = SHARPNESS * torch.randn(batch, length, other, device=machine.device)
    labels = torch.randint(0, min(own, other), (batch, length), device=machine.device)
    labels[:, 0] = -100
    leaf = student.requires_grad_()

    def run() -> None:
        leaf.grad = None
        call(leaf, teacher, labels).backward()

    return machine.seconds(run)
