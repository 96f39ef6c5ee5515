"""The package's own code in a worker: imported once, and anew wherever it has changed since."""

import importlib
import os
import sys
from importlib.machinery import PathFinder
from pathlib import Path

import kd

_ROOT = Path(kd.__file__).parent

Stamp = dict[str, tuple[int, int, int]]


class LoadedCode:
    """The package as this process has imported it, and how its files were before."""

    def __init__(self) -> None:
        self._stamp = _stamp()

    def is_current(self, script_folder: str) -> bool:
        """Whether a process started now would import the same: same place, same files.

        Args:
            script_folder: where that process looks first.
        """
        first = PathFinder.find_spec("kd", [script_folder])
        return (first is None or first.origin == kd.__file__) and self._stamp == _stamp()


def forget_code() -> None:
    """Let what is imported of the package next come from the disk."""
    for name in [name for name in sys.modules if name.partition(".")[0] == "kd"]:
        del sys.modules[name]
    importlib.invalidate_caches()


def _stamp() -> Stamp:
    """Time of change (ns), size (bytes) and number of every source file of the package."""
    found = {}
    for folder, inside, names in os.walk(_ROOT):
        inside[:] = [name for name in inside if name != "__pycache__"]
        for name in names:
            if name.endswith(".py"):
                path = f"{folder}/{name}"
                status = os.stat(path)
                found[path] = (status.st_mtime_ns, status.st_size, status.st_ino)
    return found
