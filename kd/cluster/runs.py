"""Which Snakemake process submitted which jobs, so that a killed one's jobs are found again.

SLURM's executor gives all jobs of one Snakemake process one name, its run id. The process
notes that id, and itself, in `.snakemake/slurm/`. Whoever starts next in the same folder ends
the jobs of processes that are gone: they would write where its own jobs will. A cancelled
training resumes from its checkpoint, so little is lost.
"""

import json
import os
import re
import shutil
import socket
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from kd.cluster import slurm
from kd.provenance.files import write_text

FOLDER = Path(".snakemake", "slurm")
_RUN_ID = re.compile(r"^SLURM run ID: (\S+)$", re.MULTILINE)
_PATIENCE = 10  # seconds; Snakemake's log is written by a thread of its own


@dataclass(frozen=True)
class Run:
    """One Snakemake process: its run id, and what tells it from every other process."""

    id: str
    host: str
    pid: int
    started: str

    @property
    def file(self) -> Path:
        """Where the run is noted."""
        return FOLDER / f"{self.id}.json"

    def forget(self) -> None:
        """Remove the note, and what the stand-in for `sacct` saw of the jobs."""
        self.file.with_suffix(".seen").unlink(missing_ok=True)
        self.file.unlink(missing_ok=True)

    def is_here(self) -> bool:
        """Whether the process, dead or alive, belongs to this machine."""
        return self.host == socket.gethostname()

    def is_alive(self) -> bool:
        """Whether it still runs; known of this machine's processes only."""
        return self.is_here() and _start_of(self.pid) == self.started


def noted_runs() -> list[Run]:
    """The runs noted in the current folder; a damaged note names its run and no process."""
    runs = []
    for file in sorted(FOLDER.glob("*.json")):
        try:
            note = json.loads(file.read_text(encoding="utf-8"))
            runs.append(Run(file.stem, str(note["host"]), int(note["pid"]), str(note["started"])))
        except (OSError, ValueError, KeyError, TypeError):
            runs.append(Run(file.stem, "", 0, ""))
    return runs


def note_run(logs: Sequence[str]) -> None:
    """Note this process under the run id that its own log names; without one, do nothing."""
    end = time.monotonic() + _PATIENCE
    while (run_id := _run_id(logs)) is None:
        if time.monotonic() > end:
            raise slurm.SlurmError(
                "Snakemake's log names no SLURM run ID, so its jobs could not be found again. "
                "Install the executor that constraints.txt names."
            )
        time.sleep(0.1)
    run = Run(run_id, socket.gethostname(), os.getpid(), _start_of(os.getpid()))
    note = {"host": run.host, "pid": run.pid, "started": run.started}
    write_text(run.file, json.dumps(note) + "\n")


def forget_run() -> None:
    """Remove this process's note: its jobs are over."""
    for run in noted_runs():
        if run.pid == os.getpid() and run.is_alive():
            run.forget()


def cancel_orphans() -> None:
    """Cancel the jobs of processes that are gone, and say so.

    Raises:
        SlurmError: SLURM does not answer, or jobs belong to a process on another machine.
    """
    gone = {run.id: run for run in noted_runs() if not run.is_alive()}
    if not gone:
        return
    if shutil.which("squeue") is None:
        print(
            "warning: a Snakemake that worked here with SLURM was killed, and there is no SLURM "
            f"here to ask whether its jobs still run. If none does, delete {FOLDER}.",
            file=sys.stderr,
            flush=True,
        )
        return
    jobs = slurm.unfinished_jobs(gone)
    elsewhere = [job for job in jobs if gone[job.name].host and not gone[job.name].is_here()]
    if elsewhere:
        host = gone[elsewhere[0].name].host
        raise slurm.SlurmError(
            f"jobs {slurm.numbers(elsewhere)} were submitted for this folder by a Snakemake on "
            f"{host}, which cannot be looked at from here. Start there; or, if it is gone: "
            f"scancel {' '.join(sorted({job.id for job in elsewhere}))}"
        )
    if jobs:
        print(
            f"kd: cancelling jobs {slurm.numbers(jobs)}, left behind by a Snakemake that is gone; "
            "what they were doing goes on from its checkpoint.",
            file=sys.stderr,
            flush=True,
        )
        slurm.cancel(jobs)
    for run in gone.values():
        if run.is_here() or not run.host:  # elsewhere it may live, and submit again
            run.forget()


def _run_id(logs: Sequence[str]) -> str | None:
    for log in logs:
        path = Path(log)
        found = _RUN_ID.search(path.read_text(encoding="utf-8")) if path.is_file() else None
        if found:
            return found[1]
    return None


def _start_of(pid: int) -> str:
    """The process's start time in clock ticks since boot, or an empty text if there is none."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8")
    except OSError:
        return ""
    return fields.rpartition(")")[2].split()[19]
