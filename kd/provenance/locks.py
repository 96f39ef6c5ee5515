"""One writer at a time for each output, also when the one who started it is gone.

A killed Snakemake leaves its jobs running. Started again, it starts them again: the new
job then waits here for the old one, instead of writing to the same place.
"""

import fcntl
import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def exclusive(path: Path) -> Iterator[None]:
    """Hold the right to write the file or folder `path`; wait while another process has it.

    The lock is a file beside `path` that vanishes with it; the kernel frees it when its
    holder dies.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = path.with_name(f".{path.name}.lock")
    descriptor = _acquire(lock, path)
    try:
        yield
    finally:
        lock.unlink(missing_ok=True)
        os.close(descriptor)


def _acquire(lock: Path, path: Path) -> int:
    while True:
        descriptor = os.open(lock, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            _wait_for(descriptor, path)
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


def _wait_for(descriptor: int, path: Path) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.pread(descriptor, 200, 0).decode(errors="replace") or "another process"
        print(f"waiting for {holder}, which writes {path}", file=sys.stderr, flush=True)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
    except OSError as error:  # a file system without locks: as good as it gets
        print(f"warning: {path} cannot be locked ({error})", file=sys.stderr, flush=True)


def _is_still(lock: Path, descriptor: int) -> bool:
    """Whether the locked file is the one at `lock`: the last holder removes it."""
    try:
        return os.path.samestat(lock.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False
