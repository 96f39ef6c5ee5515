"""What can be told of a safetensors file without torch: its size, its parameters, its numbers."""

import json
import math
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

# Of the floating-point formats: unsigned type of the same width, and its exponent's bits.
_EXPONENTS: dict[str, tuple[type[np.unsignedinteger[Any]], int]] = {
    "F64": (np.uint64, 0x7FF0000000000000),
    "F32": (np.uint32, 0x7F800000),
    "F16": (np.uint16, 0x7C00),
    "BF16": (np.uint16, 0x7F80),
}
_BLOCK = 1 << 22  # values looked at at once


class DamagedWeightsError(ValueError):
    """The file is no whole safetensors file."""


def read_header(path: Path) -> tuple[dict[str, Any], int]:
    """The entries of a safetensors file by name, and where their bytes start.

    Raises:
        DamagedWeightsError: the file ends early, or is of another format.
    """
    size = path.stat().st_size
    try:
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            if length > size:
                raise ValueError("its header is longer than the file")
            header = json.loads(file.read(length))
        header.pop("__metadata__", None)
        end = max((entry["data_offsets"][1] for entry in header.values()), default=0)
    except (struct.error, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DamagedWeightsError(f"no safetensors file ({error})") from None
    if 8 + length + end != size:
        raise DamagedWeightsError(f"{size} bytes instead of {8 + length + end}")
    return header, 8 + length


def parameter_count(path: Path) -> int:
    """How many numbers a safetensors file holds."""
    header, _ = read_header(path)
    return sum(math.prod(entry["shape"]) for entry in header.values())


def damaged_tensors(path: Path, *, infinite: bool = True) -> list[str]:
    """Names of the tensors that hold NaN or, with `infinite`, infinity.

    A value is one of them exactly if all bits of its exponent are set, and NaN if any bit of its
    fraction is, too (IEEE 754; bfloat16 is alike).
    """
    header, start = read_header(path)
    return [
        name
        for name, entry in sorted(header.items())
        if entry["dtype"] in _EXPONENTS and _is_damaged(path, start, entry, infinite)
    ]


def _is_damaged(path: Path, start: int, entry: dict[str, Any], infinite: bool) -> bool:
    kind, bits = _EXPONENTS[entry["dtype"]]
    exponent = kind(bits)
    fraction = kind((bits & -bits) - 1)  # all bits below the exponent's lowest
    for block in _blocks(path, start, entry, kind):
        found = (block & exponent) == exponent
        if not infinite:
            found &= (block & fraction) != 0
        if found.any():
            return True
    return False


def _blocks(
    path: Path, start: int, entry: dict[str, Any], kind: type[np.unsignedinteger[Any]]
) -> Iterator[np.ndarray[Any, np.dtype[np.unsignedinteger[Any]]]]:
    first, last = entry["data_offsets"]
    count = (last - first) // np.dtype(kind).itemsize
    with path.open("rb") as file:
        file.seek(start + first)
        for at in range(0, count, _BLOCK):
            yield np.fromfile(file, dtype=kind, count=min(_BLOCK, count - at))
