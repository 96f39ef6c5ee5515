"""One writer at a time: the others wait, or are told who it is."""

import errno
import fcntl
import os
import socket
from pathlib import Path
from typing import Any

import pytest

from kd.errors import ArtifactError
from kd.interruption import Interrupted
from kd.provenance.locks import exclusive, only_writer


def test_who_does_not_wait_is_told_the_holder_and_the_lock(tmp_path: Path) -> None:
    with only_writer(tmp_path / "store"):
        with (
            pytest.raises(ArtifactError) as refused,
            only_writer(tmp_path / "store"),
        ):
            pass
        with exclusive(tmp_path / "store"), only_writer(tmp_path / "other"):
            pass  # another right, and another place
    message = str(refused.value)
    assert f"process {os.getpid()} on {socket.gethostname()}" in message
    assert str(tmp_path / ".store.writer.lock") in message
    with only_writer(tmp_path / "store"):
        pass
    assert not list(tmp_path.iterdir())


def test_what_a_killed_holder_left_holds_nobody_up(tmp_path: Path) -> None:
    (tmp_path / ".store.writer.lock").write_text("process 1 on another-node")
    with only_writer(tmp_path / "store"):
        pass


@pytest.mark.parametrize(("module", "call"), [(fcntl, "flock"), (os, "fstat"), (os, "pwrite")])
def test_a_signal_while_taking_it_leaves_no_file(
    module: Any, call: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    function, signals = getattr(module, call), [Interrupted()]

    def interrupted_once(*arguments: Any) -> Any:
        if signals:
            raise signals.pop()
        return function(*arguments)

    monkeypatch.setattr(module, call, interrupted_once)
    with pytest.raises(Interrupted), exclusive(tmp_path / "store"):
        pass
    assert not list(tmp_path.iterdir())


def test_a_signal_while_waiting_leaves_the_holder_its_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: Any, **__: Any) -> None:
        raise Interrupted

    with exclusive(tmp_path / "store"):
        monkeypatch.setattr("builtins.print", interrupted)  # what says who is waited for
        with pytest.raises(Interrupted), exclusive(tmp_path / "store"):
            pass
        assert [path.name for path in tmp_path.iterdir()] == [".store.lock"]


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
@pytest.mark.parametrize("lock", [exclusive, only_writer])
def test_a_file_system_without_locks_is_warned_of_and_used(
    tmp_path: Path,
    number: int,
    lock: object,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with lock(tmp_path / "store"):  # type: ignore[operator]
        pass
    assert "store cannot be locked" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
