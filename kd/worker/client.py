"""A command's side: let the worker run it, if there is one to ask."""

import os
import signal
import socket
import sys
import time
from contextlib import suppress
from types import FrameType
from typing import TYPE_CHECKING

from kd.worker import OWNER
from kd.worker.protocol import ACCEPTED, Request, address, same_user, send_request

if TYPE_CHECKING:
    import subprocess

_PATIENCE = 60.0  # seconds for a worker to import its libraries, on a busy machine
_FORWARDED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1)


def delegate() -> int | None:
    """Exit status of this process's command, run by the worker; None if none will run it."""
    owner = os.environ.get(OWNER, "")
    if not owner.isdigit() or not hasattr(socket, "SO_PEERCRED"):
        return None
    try:
        connection = _connect(int(owner))
        if connection is None or not same_user(connection):
            return None
        with connection:
            return _run(connection)
    except OSError:
        return None


def _connect(owner: int) -> socket.socket | None:
    """A connection to the owner's worker, which is started if there is none."""
    deadline = time.monotonic() + _PATIENCE
    starting: subprocess.Popen[bytes] | None = None
    while time.monotonic() < deadline:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            connection.connect(address(owner))
            return connection
        except ConnectionRefusedError:
            connection.close()
        if starting is None:
            starting = _start(owner)
        elif starting.poll():
            return None
        time.sleep(0.05)
    return None


def _start(owner: int) -> "subprocess.Popen[bytes]":
    import subprocess  # needed once, and its import is a good part of what this process does

    # Of several that are started at once, one gets the address; the others end with status 0.
    return subprocess.Popen(
        [sys.executable, "-m", "kd.worker.server", str(owner)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd="/",  # no folder is kept from being unmounted
        start_new_session=True,  # a Ctrl-C at the terminal is for the commands
    )


def _run(connection: socket.socket) -> int | None:
    send_request(connection, Request.of_this_process())
    if connection.recv(1) != ACCEPTED:
        return None

    def forward(number: int, frame: FrameType | None) -> None:
        with suppress(OSError):  # it has ended, which the other side of this says better
            connection.sendall(bytes([number]))

    for number in _FORWARDED:
        signal.signal(number, forward)
    try:
        status = connection.recv(1)
    except OSError:  # it ended without having read a signal that was forwarded
        status = b""
    if not status:
        print("kd: error: the worker was killed, and this job with it.", file=sys.stderr)
        return 1
    return status[0]
