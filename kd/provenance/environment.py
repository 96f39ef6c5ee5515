"""What the numbers depend on besides code and data: versions, device, threads.

Split in two: `numerics` goes into the hashed part of a manifest, `context` (host, commit,
paths) only beside it.
"""

import importlib
import os
import platform
import subprocess
import sys
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from kd.provenance.canonical import file_digest
from kd.provenance.code import PACKAGE_ROOT

# Packages whose version can change a number. Others are pinned by constraints.txt.
NUMERIC_PACKAGES = (
    "torch",
    "transformers",
    "tokenizers",
    "numpy",
    "datasets",
    "rouge-score",
    "bert-score",
    "safetensors",
    "pyarrow",
    "POT",
    "RapidFuzz",
    "scipy",
)


@cache  # what is loaded does not change either
def _installed(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def numerics(*, tensors: bool) -> dict[str, Any]:
    """Versions, instruction set, device class, threads and determinism flags (hashed).

    Args:
        tensors: whether torch computes anything of what this describes. Whether it happens to be
            loaded in this process must not count.
    """
    torch = importlib.import_module("torch") if tensors else None
    on_gpu = bool(torch and torch.cuda.is_initialized())
    gpu = {"gpu": torch.cuda.get_device_name()} if torch and on_gpu else {}
    return {
        "python": platform.python_version(),
        "packages": {name: _installed(name) for name in NUMERIC_PACKAGES},
        "machine": platform.machine(),
        "device": "cuda" if on_gpu else "cpu",
        **gpu,
        "cpu_capability": torch.backends.cpu.get_cpu_capability() if torch else None,
        "threads": torch.get_num_threads() if torch else 1,
        "deterministic": bool(torch and torch.are_deterministic_algorithms_enabled()),
    }


def _git(*arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(PACKAGE_ROOT), *arguments],
            capture_output=True,
            text=True,
            check=True,
            timeout=10,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def source_state() -> dict[str, Any]:
    """Commit of the checkout that `kd` runs from, and whether tracked files differ from it."""
    status = _git("status", "--porcelain", "--untracked-files=no")
    return {"commit": _git("rev-parse", "HEAD"), "dirty": None if status is None else bool(status)}


def container_image() -> str | None:
    """Which container image this runs in: `sha256:…`, the image's name, or None outside of one.

    The runtime's own word (`KD_CONTAINER_DIGEST`) comes first; an Apptainer image that is visible
    from inside is hashed. Where neither is to be had, the name alone is known.
    """
    stated = os.environ.get("KD_CONTAINER_DIGEST")
    if stated:
        return stated
    image = os.environ.get("APPTAINER_CONTAINER") or os.environ.get("SINGULARITY_CONTAINER")
    if not image:
        return None
    path = Path(image)
    return f"sha256:{_image_digest(path)}" if path.is_file() else f"name:{path.name}"


@cache
def _image_digest(path: Path) -> str:
    return file_digest(path)  # seconds for an image of gigabytes, so once a process


def context() -> dict[str, Any]:
    """Where this ran (not hashed)."""
    return {
        "host": platform.node(),
        "platform": platform.platform(),
        "cpus": os.cpu_count(),
        "argv": sys.argv,
        "container": container_image(),
        **source_state(),
    }
