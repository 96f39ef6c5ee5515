"""Which GPUs a command may use, and its lease on one of them. Imports no torch.

Neither Snakemake nor a shell tells the jobs of one machine apart: two of them would both take the
first GPU. So a command takes a lease, a file lock per GPU in a folder that all of a machine's
users share, and sees that GPU alone. The kernel ends a lease with the process that has it.
"""

import fcntl
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from kd.errors import ModelError

VISIBLE = "CUDA_VISIBLE_DEVICES"
LEASES = "KD_GPU_LEASES"
_JOBS = ("SLURM_JOB_ID", "PBS_JOBID", "LSB_JOBID")  # set inside a scheduler's job
_LISTING = ["nvidia-smi", "--query-gpu=uuid", "--format=csv,noheader"]


def visible_gpus() -> list[str]:
    """The GPUs that this process may use, by index or by name; none where there is no driver."""
    told = os.environ.get(VISIBLE)
    if told is not None:
        names = [name.strip() for name in told.split(",")]
        # As CUDA reads it: what follows an invalid entry does not count.
        return names[: names.index("-1")] if "-1" in names else [name for name in names if name]
    try:
        listed = subprocess.run(_LISTING, capture_output=True, text=True, check=True, timeout=60)
    except (OSError, subprocess.SubprocessError):
        return []
    return [line.strip() for line in listed.stdout.splitlines() if line.strip()]


def require_gpus(count: int) -> list[str]:
    """The visible GPUs, if there are `count` of them.

    Raises:
        ModelError: there are fewer.
    """
    found = visible_gpus()
    if len(found) < count:
        told = os.environ.get(VISIBLE)
        why = "" if told is None else f" ({VISIBLE}='{told}')"
        raise ModelError(
            f"this job needs {count} GPU(s), but {len(found) or 'none'} can be seen{why}. For a "
            "run on the CPU say so: --gpus 0, or with Snakemake --resources gpu=0"
        )
    return found


@contextmanager
def leased(count: int | None, usual: int = 1) -> Iterator[None]:
    """Within the block this process, and what it starts, sees `count` GPUs of its own.

    Args:
        count: 0 for none; None for the usual number if so many are there, and otherwise none,
            which is said.
        usual: how many are used if nobody says.

    Raises:
        ModelError: there are fewer.
    """
    if count is None:
        seen = len(visible_gpus())
        count = usual if seen >= usual else 0
        if not count:
            print(
                f"device: the CPU, as {seen or 'no'} GPU can be seen", file=sys.stderr, flush=True
            )
    held: list[tuple[str, int]] = []
    if count:
        held = _acquire(require_gpus(count), count)
        print(f"device: GPU {', '.join(name for name, _ in held)}", file=sys.stderr, flush=True)
    before = os.environ.get(VISIBLE)
    os.environ[VISIBLE] = ",".join(name for name, _ in held) or "-1"
    try:
        yield
    finally:
        if before is None:
            os.environ.pop(VISIBLE, None)
        else:
            os.environ[VISIBLE] = before
        for _, descriptor in held:
            os.close(descriptor)


def lease_folder() -> Path:
    """Where the locks lie: the same for all users of a machine, and for no other machine.

    What a scheduler has assigned belongs to its job alone, and each job on a node may know its own
    GPU as number 0: every job has a folder of its own.
    """
    job = next((os.environ[name] for name in _JOBS if os.environ.get(name)), "")
    usual = Path(tempfile.gettempdir(), f"kd-gpu-leases-{job}" if job else "kd-gpu-leases")
    return Path(os.environ.get(LEASES) or usual)


def _acquire(names: list[str], count: int) -> list[tuple[str, int]]:
    """All of `count` GPUs at once, or none of them: two that wait for each other never end."""
    waiting = False
    while True:
        held: list[tuple[str, int]] = []
        for name in names:
            descriptor = _try(name)
            if descriptor is not None:
                held.append((name, descriptor))
            if len(held) == count:
                return held
        for _, descriptor in held:
            os.close(descriptor)
        if not waiting:
            print(f"waiting for {count} of the GPUs {', '.join(names)}", file=sys.stderr)
            waiting = True
        # Not in step with others that wait.
        time.sleep(0.1 + (os.getpid() % 10) / 100)


def _try(name: str) -> int | None:
    folder = lease_folder()
    if not folder.is_dir():
        folder.mkdir(parents=True, exist_ok=True)
        with suppress(OSError):
            folder.chmod(0o1777)
    plain = "".join(letter if letter.isalnum() else "-" for letter in name)
    path = folder / f"{plain}.lock"
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    except PermissionError:  # another user's, in a folder where only its owner may create it
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    with suppress(OSError):  # the mask of its owner
        path.chmod(0o666)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        return None
    return descriptor
