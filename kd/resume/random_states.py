"""The states of all random number generators, as a checkpoint keeps them."""

import random
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor


def random_tensors() -> dict[str, Tensor]:
    """States of torch's generators: the processor's, and that of each GPU in use."""
    states = {"torch": torch.get_rng_state()}
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        devices = enumerate(torch.cuda.get_rng_state_all())
        states |= {f"cuda.{device}": state for device, state in devices}
    return states


def random_values() -> dict[str, Any]:
    """States of the generators of Python and numpy, as plain values."""
    name, keys, *rest = np.random.get_state()
    return {"python": random.getstate(), "numpy": [name, np.asarray(keys).tolist(), *rest]}


def restore_random(tensors: Mapping[str, Tensor], values: Mapping[str, Any]) -> None:
    """Put back what `random_tensors` and `random_values` gave."""
    version, state, gauss = values["python"]
    random.setstate((version, tuple(state), gauss))
    np.random.set_state(tuple(values["numpy"]))
    torch.set_rng_state(tensors["torch"])
    for name, found in tensors.items():
        if name != "torch":
            torch.cuda.set_rng_state(found, int(name.removeprefix("cuda.")))
