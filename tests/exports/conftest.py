"""The finished experiment made by hand, as the audit's tests make it."""

import pytest

from tests.audit.fabrication import World, fabricate


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> World:
    """Read only."""
    return fabricate(tmp_path_factory.mktemp("exports") / "finished")


@pytest.fixture
def at_home(finished: World, monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.chdir(finished.root)
    return finished
