"""What GPUs can do, by their makers: times are estimated from it before any is measured."""

from dataclasses import dataclass

from kd.errors import KdError, nearest


class DeviceError(KdError):
    """No GPU of that name is known."""


@dataclass(frozen=True)
class Device:
    """A GPU's published limits.

    Attributes:
        half: dense bfloat16 operations a second.
        single: float32 operations a second, TF32 off.
        bandwidth: bytes a second between its memory and its cores.
        memory: bytes.
    """

    name: str
    half: float
    single: float
    bandwidth: float
    memory: float


# Data sheets of the makers: dense (no sparsity), boost clock, the largest memory sold.
DEVICES = {
    device.name: device
    for device in (
        Device("a100", half=312e12, single=19.5e12, bandwidth=2.04e12, memory=80e9),
        Device("h100", half=989e12, single=67e12, bandwidth=3.35e12, memory=80e9),
        Device("h200", half=989e12, single=67e12, bandwidth=4.8e12, memory=141e9),
        Device("l40s", half=362e12, single=91.6e12, bandwidth=0.864e12, memory=48e9),
        Device("rtx4090", half=165e12, single=82.6e12, bandwidth=1.01e12, memory=24e9),
    )
}
DEFAULT = "a100"  # the paper's


def device_called(name: str) -> Device:
    """The GPU of that name.

    Raises:
        DeviceError: none is known.
    """
    if name not in DEVICES:
        raise DeviceError(f"no figures of a GPU '{name}' are known. {nearest(name, DEVICES)}")
    return DEVICES[name]
