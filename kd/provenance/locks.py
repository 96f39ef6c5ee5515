"""One writer at a time for each output, also when the one who started it is gone.

A killed Snakemake leaves its jobs running. Started again, it starts them again: the new
job then waits here for the old one, instead of writing to the same place.
"""

import fcntl
import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from kd.errors import ArtifactError


@contextmanager
def exclusive(path: Path) -> Iterator[None]:
    """Hold the right to write the file or folder `path`; wait while another process has it.

    The lock is a file beside `path` that vanishes with it; the kernel frees it when its
    holder dies.
    """
    with _held(path.with_name(f".{path.name}.lock"), path, wait=True):
        yield


@contextmanager
def only_writer(path: Path) -> Iterator[None]:
    """`exclusive` for a part of a program that does not wait. Both may be held at once.

    Raises:
        ArtifactError: another process, or another part of this one, has the right.
    """
    with _held(path.with_name(f".{path.name}.writer.lock"), path, wait=False):
        yield


@contextmanager
def _held(lock: Path, path: Path, *, wait: bool) -> Iterator[None]:
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        descriptor = _acquire(lock, path, wait)
    except BaseException:  # a signal, as a rule
        _remove_if_free(lock)
        raise
    try:
        yield
    finally:
        lock.unlink(missing_ok=True)
        os.close(descriptor)


def _acquire(lock: Path, path: Path, wait: bool) -> int:
    while True:
        descriptor = os.open(lock, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            _lock(descriptor, lock, path, wait)
            if _is_still(lock, descriptor):
                os.ftruncate(descriptor, 0)
                os.pwrite(
                    descriptor, f"process {os.getpid()} on {socket.gethostname()}".encode(), 0
                )
                return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


def _lock(descriptor: int, lock: Path, path: Path, wait: bool) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.pread(descriptor, 200, 0).decode(errors="replace") or "another process"
        if not wait:
            raise ArtifactError(
                f"{path}: {holder} is writing this, and holds {lock}. Wait for it, or end it."
            ) from None
        print(f"waiting for {holder}, which writes {path}", file=sys.stderr, flush=True)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
    except OSError as error:  # a file system without locks: as good as it gets
        print(f"warning: {path} cannot be locked ({error})", file=sys.stderr, flush=True)


def _remove_if_free(lock: Path) -> None:
    """Leave no file behind that nobody holds."""
    with suppress(OSError):  # it is gone, or another process holds it
        descriptor = os.open(lock, os.O_RDWR)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is_still(lock, descriptor):
                lock.unlink()
        finally:
            os.close(descriptor)


def _is_still(lock: Path, descriptor: int) -> bool:
    """Whether the locked file is the one at `lock`: the last holder removes it."""
    try:
        return os.path.samestat(lock.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False
