"""A worker's forks are the commands that they stand for: same code, streams, signals and status."""

import errno
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import kd
from kd.interruption import EXIT_STATUS
from kd.worker import server
from kd.worker.protocol import ACCEPTED, REFUSED, Request, address, receive_request

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="abstract sockets and pidfds")
BAD_SPEC = ["predict", "--spec", "{}", "--model", "m", "--data", "d", "--out", "o"]


class Owner:
    """A process that owns a worker, and a copy of the package that its commands run."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        shutil.copytree(
            Path(kd.__file__).parent, folder / "kd", ignore=shutil.ignore_patterns("__pycache__")
        )
        self.process = subprocess.Popen(["sleep", "600"])

    def start(self, arguments: list[str], **environment: str) -> subprocess.Popen[str]:
        settings = {"KD_WORKER": str(self.process.pid), "PYTHONPATH": str(self.folder)}
        inherited = {k: v for k, v in os.environ.items() if k != "PYTEST_CURRENT_TEST"}
        return subprocess.Popen(
            [sys.executable, "-m", "kd.cli", *arguments],
            env=inherited | settings | environment,
            cwd=self.folder,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    def run(self, arguments: list[str], **environment: str) -> tuple[int, str]:
        process = self.start(arguments, **environment)
        _, errors = process.communicate(timeout=120)
        return process.returncode, errors

    def workers(self) -> list[int]:
        return [pid for pid in self._family() if _parent(pid) not in self._family()]

    def forks(self) -> list[int]:
        return [pid for pid in self._family() if _parent(pid) in self._family()]

    def _family(self) -> list[int]:
        """The worker and its forks, which keep its command line."""
        return [pid for pid in _processes() if f"server\0{self.process.pid}" in _command(pid)]


def _processes() -> list[int]:
    return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]


def _command(process: int) -> str:
    try:
        return Path(f"/proc/{process}/cmdline").read_text()
    except OSError:
        return ""


def _parent(process: int) -> int:
    try:
        return int(Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return 0


def _until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.02)


@pytest.fixture(scope="module")
def owner(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Owner]:
    found = Owner(tmp_path_factory.mktemp("owner"))
    assert found.run(BAD_SPEC)[0] == 2  # starts the worker
    assert len(found.workers()) == 1
    yield found
    found.process.kill()
    found.process.wait()


def _waiting(owner: Owner) -> tuple[subprocess.Popen[str], int]:
    """A command that waits for its specification, and the fork that runs it."""
    pipe = owner.folder / "spec.json"
    pipe.unlink(missing_ok=True)
    os.mkfifo(pipe)
    waiting = owner.start(["predict", "--spec", str(pipe), *BAD_SPEC[3:]])
    _until(owner.forks)
    return waiting, owner.forks()[0]


def test_status_and_message_are_those_of_the_command_by_itself(owner: Owner) -> None:
    assert owner.run(BAD_SPEC) == owner.run(BAD_SPEC, KD_WORKER="")
    assert owner.run(["predict", "--nonsense"]) == owner.run(
        ["predict", "--nonsense"], KD_WORKER=""
    )


def test_another_environment_is_not_served(owner: Owner) -> None:
    status, errors = owner.run(BAD_SPEC, HF_HUB_OFFLINE="1", PYTHONVERBOSE="")
    assert (status, len(owner.workers())) == (2, 1)
    assert "--spec" in errors


def test_a_fork_runs_the_code_that_is_on_disk_now(owner: Owner) -> None:
    source = owner.folder / "kd" / "experiment" / "spec_files.py"
    before = source.read_text()
    assert "no such file, and no JSON" in before
    arguments = ["predict", "--spec", "absent.json", *BAD_SPEC[3:]]
    source.write_text(before.replace("no such file, and no JSON", "edited in between"))
    assert "edited in between" in owner.run(arguments)[1]
    source.write_text(before)
    assert "no such file" in owner.run(arguments)[1]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_signal_reaches_the_fork(owner: Owner, number: signal.Signals) -> None:
    waiting, fork = _waiting(owner)
    waiting.send_signal(number)
    _until(lambda: fork not in _processes())
    waiting.wait(timeout=60)
    # Told to stop, it does so in its own words once it has started, and is killed before.
    told = {EXIT_STATUS, 128 + signal.SIGTERM}
    assert waiting.returncode in (told if number == signal.SIGTERM else {-signal.SIGKILL})


def test_a_killed_fork_is_a_failed_command(owner: Owner) -> None:
    waiting, fork = _waiting(owner)
    os.kill(fork, signal.SIGKILL)
    assert waiting.wait(timeout=60) == 128 + signal.SIGKILL


def test_owner_worker_and_forks_end_together(tmp_path: Path) -> None:
    owner = Owner(tmp_path)
    owner.run(BAD_SPEC)
    waiting, fork = _waiting(owner)
    worker = owner.workers()[0]
    owner.process.kill()
    owner.process.wait()
    _until(lambda: not {fork, worker} & set(_processes()))
    waiting.wait(timeout=60)
    assert waiting.returncode != 0


def test_a_worker_of_nobody_ends_at_once() -> None:
    ended = subprocess.Popen(["true"])
    ended.wait()
    command = [sys.executable, "-m", "kd.worker.server", str(ended.pid)]
    assert subprocess.run(command, timeout=120, check=False).returncode == 0
    assert str(ended.pid) in address(ended.pid)


def test_a_command_does_not_run_itself_when_its_worker_ends_on_a_signal(owner):
    """Its fork was told to stop: what runs now would write where a next job does."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    with listener:
        listener.bind(address(os.getpid()))
        listener.listen()
        process = owner.start(BAD_SPEC, KD_WORKER=str(os.getpid()))
        connection, _ = listener.accept()
        _, streams = receive_request(connection)
        connection.sendall(ACCEPTED)
        time.sleep(0.5)
        process.send_signal(signal.SIGTERM)
        time.sleep(0.5)
        connection.close()  # with the signal unread: the other side's connection is reset
        for stream in streams:
            os.close(stream)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    assert errors.strip() == "kd: error: the worker was killed, and this job with it."


@pytest.mark.parametrize("fails", ["fork", "pidfd_open"])
@pytest.mark.parametrize("gone", [False, True])
def test_a_command_that_cannot_be_served_is_told_so(monkeypatch, fails, gone):
    """And the worker goes on, with all that it serves."""

    def refused(*_: object) -> int:
        raise OSError(errno.EAGAIN, "no room")

    request = Request.of_this_process()._replace(python=server.interpreter())
    worker = server.Worker(
        os.pidfd_open(os.getpid()), socket.socket(socket.AF_UNIX), request.environment
    )
    child = subprocess.Popen(["sleep", "60"])
    monkeypatch.setattr(os, "fork", lambda: child.pid)
    monkeypatch.setattr(os, fails, refused)
    monkeypatch.setattr(server, "_threads", lambda: 1)
    ours, theirs = socket.socketpair()
    if gone:
        theirs.close()
    assert worker._fork(server.Job(request, []), ours) is None
    assert gone or theirs.recv(1) == REFUSED
    assert (fails == "pidfd_open") == (child.pid not in _processes())
    worker.close()
    child.kill()
    child.wait()
