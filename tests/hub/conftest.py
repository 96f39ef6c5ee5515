"""The hub's client, offline, on a cache of its own."""

import pytest

from tests.hub.caches import HubCache


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache that the client uses; the network is off."""
    home = tmp_path / "hf"
    use_cache(home, monkeypatch)
    return HubCache(home)


def use_cache(home, monkeypatch):
    monkeypatch.setenv("HF_HOME", str(home))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    # The client reads its environment when it is imported.
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(home / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(home / "token"))
    monkeypatch.delenv("HF_TOKEN", raising=False)
