"""Progress of long work: a bar on a terminal, a line every few seconds in a log file."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

Advance = Callable[[int, str], None]
_SECONDS_BETWEEN_LINES = 15.0


@contextmanager
def progress(what: str, total: int) -> Iterator[Advance]:
    """Yield `advance(done, note)`, to be called with the work done so far, out of `total`."""
    show = _bar if sys.stderr.isatty() else _lines
    with show(what, total) as advance:
        yield advance


@contextmanager
def _bar(what: str, total: int) -> Iterator[Advance]:
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True)) as bar:
        task = bar.add_task(what, total=total)

        def advance(done: int, note: str = "") -> None:
            bar.update(task, completed=done, description=f"{what} {note}".strip())

        yield advance


@contextmanager
def _lines(what: str, total: int) -> Iterator[Advance]:
    started = last = time.monotonic()

    def advance(done: int, note: str = "") -> None:
        nonlocal last
        now = time.monotonic()
        if done < total and now - last < _SECONDS_BETWEEN_LINES:
            return
        last = now
        left = (now - started) / max(done, 1) * (total - done)
        print(f"{what}: {done}/{total} {note}, {left:.0f} s left", file=sys.stderr, flush=True)

    print(f"{what}: {total} steps to do", file=sys.stderr, flush=True)
    yield advance
