"""The `kd` command in processes of their own, started from one that has torch loaded."""

import contextlib
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.context import ForkServerProcess
from pathlib import Path

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(
    ["kd.training.distillation", "kd.models.stage", "kd.teacher.answers", "kd.evaluation.predict"]
)


def _run(arguments: Sequence[str], log: Path, environment: dict[str, str]) -> None:
    os.environ.update(environment)
    with log.open("a") as file, contextlib.redirect_stderr(file):
        sys.argv = ["kd", *arguments]
        from kd.cli import main

        main()


@dataclass(frozen=True)
class Command:
    """One `kd` command, that can be started again and again."""

    arguments: Sequence[str]
    log: Path

    def start(self, **environment: str) -> ForkServerProcess:
        process = _CONTEXT.Process(target=_run, args=(self.arguments, self.log, environment))
        process.start()
        return process

    def finish(self, **environment: str) -> None:
        process = self.start(**environment)
        process.join(120)
        assert process.exitcode == 0, self.said()

    def said(self) -> str:
        return self.log.read_text() if self.log.is_file() else ""


def wait_until(
    holds: Callable[[], object], process: ForkServerProcess, seconds: float = 60
) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert process.is_alive(), f"it ended with {process.exitcode}"
        assert time.monotonic() < deadline, "it took too long"
        time.sleep(0.002)


def stop(process: ForkServerProcess, number: signal.Signals) -> float:
    """Send a signal; returns the seconds until the process has ended."""
    started = time.monotonic()
    assert process.pid is not None
    os.kill(process.pid, number)
    process.join(60)
    return time.monotonic() - started
