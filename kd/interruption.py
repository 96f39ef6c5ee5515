"""SIGTERM and Ctrl-C: what was done is kept, and the exit status says that it can go on.

A signal raises `Interrupted` wherever the program stands, so that files half written are
removed on the way out. Inside `postponed` it waits for the end of the step in hand.
"""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

EXIT_STATUS = 75  # EX_TEMPFAIL of sysexits.h: the same command may be tried again
_AGAIN = "The same command goes on from what is kept."


class Interrupted(BaseException):
    """The process was asked to stop. Like KeyboardInterrupt, no ordinary error."""

    def __init__(self, kept: str = "") -> None:
        super().__init__(" ".join(part for part in (kept, _AGAIN) if part))


class _Signals:
    """What has arrived, and whether it has to wait."""

    postponing = False
    requested = False


def install() -> None:
    """Handle SIGTERM and SIGINT in this process (from its main thread)."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _handle)


def _handle(number: int, frame: FrameType | None) -> None:
    if _Signals.postponing:
        _Signals.requested = True
        return
    raise Interrupted


@contextmanager
def postponed() -> Iterator[None]:
    """Let a signal wait; the block asks `stop_requested` and raises `Interrupted` itself."""
    _Signals.postponing = True
    try:
        yield
    finally:
        _Signals.postponing = False
    if stop_requested():  # it came after the block had asked for the last time
        raise Interrupted


def stop_requested() -> bool:
    """Whether a signal waits; asking answers it."""
    requested, _Signals.requested = _Signals.requested, False
    return requested
