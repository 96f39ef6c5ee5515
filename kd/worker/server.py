"""The worker: `python -m kd.worker.server OWNER`, started by the first command that wants one.

It has one thread, which is what makes its forks safe, and checks that before each of them.
"""

import atexit
import ctypes
import gc
import importlib
import os
import selectors
import signal
import socket
import sys
import warnings
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import NoReturn

from kd.worker import OWNER
from kd.worker.code import LoadedCode, forget_code
from kd.worker.protocol import (
    ACCEPTED,
    FREE,
    REFUSED,
    Request,
    address,
    bound,
    interpreter,
    receive_request,
    same_user,
)

# All that stages import before their own code, and that starts no thread.
LIBRARIES = (
    "numpy",
    "pyarrow.dataset",
    "pyarrow.parquet",
    "pydantic.main",
    "rouge_score.rouge_scorer",
    "safetensors.torch",
    "scipy.stats",
    "tokenizers",
    "torch",
    "transformers",
    "transformers.generation.utils",
    "transformers.modeling_utils",
    "typer",
)
# Arrow's allocator would start a thread.
_ALLOCATOR, _NO_THREAD = "JE_ARROW_MALLOC_CONF", "background_thread:false"
_PR_SET_PDEATHSIG = 1
_LAST_CHANCE = 20  # seconds for a fork to write a checkpoint
_LONGEST_WAIT = 10.0  # seconds a command may take to say what it wants


@dataclass(frozen=True)
class Fork:
    """A command that runs as a fork of this process."""

    process: int
    descriptor: int  # readable once it has ended
    connection: socket.socket


@dataclass(frozen=True)
class Job:
    """What a fork has to become."""

    request: Request
    streams: list[int]


class Worker:
    """Forks for every command, until the owner is gone."""

    def __init__(self, owner: int, listener: socket.socket, environment: Mapping[str, str]) -> None:
        """Serve the commands of `owner` that connect to `listener` from this `environment`."""
        self._owner = owner
        self._listener = listener
        self._environment = bound(environment)
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._owner, selectors.EVENT_READ)
        self._selector.register(listener, selectors.EVENT_READ)
        self._forks: dict[int, Fork] = {}

    def serve(self) -> Job | None:
        """Run until the owner has ended: None. In a fork: the job that it is for."""
        while True:
            for key, _ in self._selector.select():
                if key.fd == self._owner:
                    self._end()
                    return None
                if key.fileobj is self._listener:
                    job = self._accept()
                    if job is not None:
                        return job
                elif isinstance(key.data, Fork):
                    self._hear(key.data, ended=key.fd == key.data.descriptor)

    def close(self) -> None:
        """Let go of everything; in a fork, which has no other use for it."""
        for fork in self._forks.values():
            os.close(fork.descriptor)
            fork.connection.close()
        self._selector.close()
        self._listener.close()
        os.close(self._owner)

    def _accept(self) -> Job | None:
        connection, _ = self._listener.accept()
        connection.settimeout(_LONGEST_WAIT)
        try:
            if not same_user(connection):
                raise OSError("another user")
            request, streams = receive_request(connection)
        except (OSError, ValueError, TypeError):
            connection.close()
            return None
        job = self._fork(Job(request, streams), connection)
        for stream in [] if job else streams:
            os.close(stream)
        return job

    def _fork(self, job: Job, connection: socket.socket) -> Job | None:
        """The job, in the fork; None in this process."""
        known = bound(job.request.environment) == self._environment
        if not known or job.request.python != interpreter() or _threads() != 1:
            return self._refuse(connection)
        try:
            process = os.fork()
        except OSError:  # no room for another process; the command tries by itself
            return self._refuse(connection)
        if process == 0:
            connection.close()
            return job
        try:
            descriptor = os.pidfd_open(process)
        except OSError:  # too many open files
            os.kill(process, signal.SIGKILL)
            os.waitpid(process, 0)
            return self._refuse(connection)
        fork = Fork(process, descriptor, connection)
        self._forks[process] = fork
        self._selector.register(fork.descriptor, selectors.EVENT_READ, fork)
        self._selector.register(connection, selectors.EVENT_READ, fork)
        with suppress(OSError):
            connection.sendall(ACCEPTED)
        return None

    @staticmethod
    def _refuse(connection: socket.socket) -> None:
        """Let the command do its work itself."""
        with suppress(OSError):  # it may be gone
            connection.sendall(REFUSED)
        connection.close()

    def _hear(self, fork: Fork, *, ended: bool) -> None:
        """The fork has ended, or its command has something to say."""
        if fork.process not in self._forks:
            return  # the other of two events at once
        if ended:
            _, status = os.waitpid(fork.process, 0)
            code = os.waitstatus_to_exitcode(status)
            with suppress(OSError):
                fork.connection.sendall(bytes([code if code >= 0 else 128 - code]))
            self._forget(fork)
            return
        try:
            numbers = fork.connection.recv(16)
        except OSError:
            numbers = b""
        for number in numbers or [signal.SIGKILL]:  # a killed command kills
            os.kill(fork.process, number)
        if not numbers:
            self._selector.unregister(fork.connection)

    def _forget(self, fork: Fork) -> None:
        del self._forks[fork.process]
        self._selector.unregister(fork.descriptor)
        with suppress(KeyError):
            self._selector.unregister(fork.connection)
        os.close(fork.descriptor)
        fork.connection.close()

    def _end(self) -> None:
        """Nobody waits for the forks any more: they are told to stop, and killed if they do not."""
        signal.alarm(_LAST_CHANCE)  # ends this process, and with it the forks
        for fork in self._forks.values():
            os.kill(fork.process, signal.SIGTERM)
        for fork in self._forks.values():
            os.waitpid(fork.process, 0)


def _threads() -> int:
    return len(os.listdir("/proc/self/task"))


def _become(job: Job, code: LoadedCode) -> None:
    """Make this fork the process that asked for it."""
    # The kernel kills it with the worker: nobody could say any more how it ended.
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    os.setsid()
    for standard, stream in enumerate(job.streams):
        os.dup2(stream, standard)
        os.close(stream)
    os.umask(job.request.umask)
    os.chdir(job.request.folder)
    # The rest is as it was when the libraries were imported, but for what they set themselves.
    for name in FREE | {OWNER}:
        os.environ.pop(name, None)
    os.environ.update({k: v for k, v in job.request.environment.items() if k in FREE})
    sys.argv, sys.path[0] = job.request.arguments, job.request.script_folder
    # Its code is what is on disk now.
    if not code.is_current(job.request.script_folder):
        forget_code()


def _run_command() -> NoReturn:
    """Run the command in `sys.argv`, without the interpreter's tidying up after it.

    That would free what the libraries hold, object by object, and for that copy each page that
    this fork shares with the worker: more work than many a job. A command that fails takes the
    usual way out.
    """
    status = 0
    try:
        importlib.import_module("kd.cli").main()
    except SystemExit as ended:
        if not isinstance(ended.code, int | None):
            raise
        status = ended.code or 0
    _exit_instead.append(status & 0xFF)
    sys.exit(status)


_exit_instead: list[int] = []  # the status, once a command is done


def _at_exit() -> None:
    """The last of the functions that run at exit: the first that was registered."""
    if not _exit_instead:
        return
    try:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
    except (OSError, ValueError):
        return  # the interpreter says so, and with which status
    ctypes.CDLL(None).fflush(None)  # what libraries print
    os._exit(_exit_instead[0])


def main(owner: int) -> None:
    """Serve `owner` until its end; in a fork, be the command that was asked for."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        owned = os.pidfd_open(owner)
        listener.bind(address(owner))
    except OSError:
        return  # the owner has ended, or another worker serves it
    atexit.register(_at_exit)
    environment = dict(os.environ)  # torch adds to it
    os.environ[_ALLOCATOR] = _NO_THREAD
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for library in LIBRARIES:
            importlib.import_module(library)
        code = LoadedCode()
        try:
            importlib.import_module("kd.commands.preparation").prepare()
        except Exception:  # an edit in the middle: commands import it themselves, and say so
            forget_code()
    gc.freeze()
    worker = Worker(owned, listener, environment)
    listener.listen()
    job = worker.serve()
    worker.close()
    if job is not None:
        _become(job, code)
        _run_command()


if __name__ == "__main__":
    main(int(sys.argv[1]))
