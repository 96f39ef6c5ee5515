"""What holds for every test: reproducible properties, and no signal handlers left behind."""

import signal
from collections.abc import Iterator

import pytest
from hypothesis import settings

settings.register_profile("kd", deadline=None, derandomize=True, max_examples=60)
settings.load_profile("kd")


@pytest.fixture(autouse=True)
def _own_signal_handlers() -> Iterator[None]:
    """`kd.cli.main` handles SIGTERM; a fork of the test process would inherit that and not end."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)
