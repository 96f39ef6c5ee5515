"""One finished experiment, made by hand once a session; tests copy it before they spoil it."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.audit.fabrication import World, fabricate


@pytest.fixture(scope="session")
def clean(tmp_path_factory: pytest.TempPathFactory) -> World:
    """A finished experiment with nothing wrong. Read only."""
    return fabricate(tmp_path_factory.mktemp("audit") / "clean")


@pytest.fixture
def spoilt(clean: World, tmp_path: Path) -> World:
    """A copy for a test to spoil."""
    return clean.copy(tmp_path / "world")


@pytest.fixture
def spoil(spoilt: World) -> Callable[[Callable[[World], None]], World]:
    """Spoil the copy in the way of a function, and return it."""

    def spoil(tamper: Callable[[World], None]) -> World:
        tamper(spoilt)
        return spoilt

    return spoil
