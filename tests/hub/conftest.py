"""The hub's client, offline, on a cache of its own."""

import pytest

from tests.hub.caches import HubCache
from tests.hub.server import LocalHub


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


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A hub on the loopback that the client asks, with an empty cache."""
    use_cache(tmp_path / "hf", monkeypatch)
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    local = LocalHub()
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", local.url)
    monkeypatch.setattr("huggingface_hub.hf_api.constants.ENDPOINT", local.url)
    monkeypatch.setattr(
        "huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE",
        local.url + "/{repo_id}/resolve/{revision}/{filename}",
    )
    yield local
    local.close()
