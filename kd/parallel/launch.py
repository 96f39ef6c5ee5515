"""Starting the processes of one training: the same command once per rank. Imports no torch.

The environment is that of `accelerate launch` and `torchrun`, either of which may start a stage
instead. Here a signal reaches every rank, each refusal stays one sentence, the exit status says
whether the command may go on, and no rank outlives the command.
"""

import ctypes
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress

from kd.errors import TrainingError
from kd.interruption import EXIT_STATUS, Interrupted, postponed, stop_requested

_REFUSED = 2
_PATIENCE = 20.0  # seconds for the other ranks to end, once one has failed
_PR_SET_PDEATHSIG = 1


def is_rank() -> bool:
    """Whether this process was started as one of several."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


def run_ranks(count: int, command: Sequence[str] | None = None) -> None:
    """Run this command as `count` processes and wait for them.

    Args:
        count: ranks.
        command: what each of them runs, by default what this process runs.

    Raises:
        Interrupted: a signal came; the ranks have kept their state.
        SystemExit: a rank refused to go on, and has said why.
        TrainingError: a rank was killed, or ended by mistake.
    """
    command = command or [sys.executable, "-m", "kd.cli", *sys.argv[1:]]
    common = os.environ | {
        "KD_WORKER": "",  # each is a process of its own
        "WORLD_SIZE": str(count),
        "LOCAL_WORLD_SIZE": str(count),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(_free_port()),
    }
    with postponed():
        ranks = [
            subprocess.Popen(
                command,
                env=common | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
                preexec_fn=_die_with_parent,
            )
            for rank in range(count)
        ]
        try:
            statuses = _wait(ranks)
        finally:
            _end(ranks)
    _judge(statuses)


def _wait(ranks: Sequence["subprocess.Popen[bytes]"]) -> list[int | None]:
    """Each one's status, once all have ended or one has failed; then None where it runs on.

    A signal is handed on to all of them.
    """
    while True:
        statuses = [rank.poll() for rank in ranks]
        failed = any(status not in (None, 0, EXIT_STATUS) for status in statuses)
        if failed or None not in statuses:
            return statuses
        if stop_requested():
            for rank in ranks:
                rank.terminate()
        time.sleep(0.05)


def _end(ranks: Sequence["subprocess.Popen[bytes]"]) -> None:
    """Those that wait for one which has failed would wait forever."""
    deadline = time.monotonic() + _PATIENCE
    for rank in ranks:
        with suppress(ProcessLookupError):
            rank.terminate()
    for rank in ranks:
        try:
            rank.wait(max(0.1, min(2.0, deadline - time.monotonic())))
        except subprocess.TimeoutExpired:
            rank.kill()
            rank.wait()


def _judge(statuses: Sequence[int | None]) -> None:
    if _REFUSED in statuses:
        sys.exit(_REFUSED)
    failed = {rank: status for rank, status in enumerate(statuses) if status}
    if not failed:
        return
    if set(failed.values()) == {EXIT_STATUS}:
        raise Interrupted
    # A rank that loses another ends with a mistake of its own: first comes one that was killed.
    rank, status = min(failed.items(), key=lambda item: (item[1] > 0, item[0]))
    raise TrainingError(
        f"process {rank} of {len(statuses)} ended with status {status}, and the others with it. "
        "The lines above say why; if it was killed, the same command goes on from the last "
        "checkpoint."
    )


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _die_with_parent() -> None:
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
