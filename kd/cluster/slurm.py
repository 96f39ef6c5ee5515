"""SLURM's own commands, as far as the workflow needs them: which jobs run, and ending them."""

import os
import subprocess
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from kd.errors import KdError

_TIMEOUT = 60  # seconds; a busy controller answers late
_GONE = 180  # seconds a cancelled job may take to end: SLURM's KillWait is 30 by default
_ALL_STATES = "PENDING,RUNNING,SUSPENDED,COMPLETING,CONFIGURING,REQUEUED,STOPPED"


class SlurmError(KdError):
    """SLURM does not answer, or refuses."""


@dataclass(frozen=True)
class Job:
    """A job that is not over: its number, its name and its comment."""

    id: str
    name: str
    comment: str


def unfinished_jobs(names: Collection[str]) -> list[Job]:
    """The caller's jobs of these names that wait, run or are about to end.

    Raises:
        SlurmError: `squeue` is missing, or the controller does not answer.
    """
    found = _ask("squeue", "--noheader", "--me", f"--states={_ALL_STATES}", "--format=%A|%j|%k")
    jobs = [Job(*line.split("|", 2)) for line in found.splitlines() if line.count("|") >= 2]
    return [job for job in jobs if job.name in names]


def cancel(jobs: Sequence[Job]) -> None:
    """End these jobs, and return when the last of their processes is gone.

    Raises:
        SlurmError: `scancel` is refused, or a job does not end.
    """
    _ask("scancel", *sorted({job.id for job in jobs}))
    names = {job.name for job in jobs}
    end = time.monotonic() + _GONE
    while left := unfinished_jobs(names):
        if time.monotonic() > end:
            raise SlurmError(
                f"jobs {numbers(left)} do not end {_GONE} s after scancel. Start again when "
                "`squeue --me` no longer lists them."
            )
        time.sleep(1)


def numbers(jobs: Sequence[Job]) -> str:
    """The jobs' numbers, once each, as a list to read."""
    return ", ".join(sorted({job.id for job in jobs}, key=int))


def has_accounting() -> bool:
    """Whether finished jobs are in a database, which `sacct` reads.

    Raises:
        SlurmError: the controller does not answer.
    """
    for line in _ask("scontrol", "show", "config").splitlines():
        name, _, value = line.partition("=")
        if name.strip() == "AccountingStorageType":
            return value.strip() not in ("accounting_storage/none", "(null)", "")
    return False


def prefer_commands_of(profile: Path) -> None:
    """Where there is no accounting, put the profile's stand-in for `sacct` before the real one.

    The real one fails for ever then, and whoever asks it for a job's end waits for ever.

    Raises:
        SlurmError: the controller does not answer.
    """
    if not has_accounting():
        folder = profile / "without-accounting"
        os.environ["PATH"] = f"{folder.resolve()}{os.pathsep}{os.environ['PATH']}"


def _ask(*command: str) -> str:
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=_TIMEOUT, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise SlurmError(f"`{command[0]}` cannot be asked ({error}).") from None
    if done.returncode != 0:
        lines = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
        raise SlurmError(f"`{command[0]}` does not answer: {lines[-1]}")
    return done.stdout
