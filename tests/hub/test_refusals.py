"""What goes wrong with the hub is one sentence that says what to do: the client's real errors."""

import pytest
from huggingface_hub import errors

from kd.experiment.fetching import FetchSpec
from kd.hub.access import HubError, Repository, hub_errors
from kd.hub.models import fetch_model
from kd.provenance.manifest import read_manifest
from tests.hub.caches import build, commit_of
from tests.hub.server import Repo

COMMIT = commit_of("served")


@pytest.fixture
def served(hub, tmp_path):
    """A model that the local hub has."""
    folder = tmp_path / "served"
    build("opt", folder)
    (folder / "pytorch_model.bin").write_bytes(b"?")
    repo = Repo(folder, {"main": COMMIT})
    hub.repos["models", "org/tiny"] = repo
    return repo


def fetch(out, repo="org/tiny", revision="main"):
    fetch_model(FetchSpec(repo=repo, revision=revision), out)


def refusal(out, **asked) -> HubError:
    with pytest.raises(HubError) as found:
        fetch(out, **asked)
    text = str(found.value)
    assert "\n" not in text and text.endswith(".")
    return found.value


def test_a_model_is_downloaded_at_the_commit_of_its_branch(hub, served, tmp_path):
    fetch(tmp_path / "out")
    assert read_manifest(tmp_path / "out/fetch.manifest.json")["notes"]["commit"] == COMMIT
    asked = " ".join(hub.asked)
    assert f"/org/tiny/resolve/{COMMIT}/model.safetensors" in asked
    assert "pytorch_model.bin" not in asked  # no pickle, not even for a moment


def test_what_was_downloaded_needs_no_hub_any_more(hub, served, tmp_path, monkeypatch):
    fetch(tmp_path / "online")
    hub.repos.clear()
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    fetch(tmp_path / "offline")
    manifests = [
        read_manifest(tmp_path / name / "fetch.manifest.json") for name in ("online", "offline")
    ]
    assert manifests[0]["identity"] == manifests[1]["identity"]


def test_gated(served, tmp_path):
    served.gated = True
    found = refusal(tmp_path / "out")
    assert found.problem == "gated"
    for part in ("is gated", "no token is set", "huggingface.co/org/tiny", "hf auth login", "open"):
        assert part in str(found)


def test_gated_and_the_token_has_no_access(served, tmp_path, monkeypatch):
    served.gated = True
    monkeypatch.setenv("HF_TOKEN", "hf_none")
    assert "has no access to it" in str(refusal(tmp_path / "out"))


def test_no_such_repository(hub, tmp_path):
    found = refusal(tmp_path / "out", repo="org/none")
    assert found.problem == "not found"
    assert "the hub knows no such repository" in str(found) and "token" in str(found)


def test_no_such_revision(served, tmp_path):
    found = refusal(tmp_path / "out", revision="v9")
    assert found.problem == "revision"
    assert "commits/main" in str(found)


def test_no_name(hub, tmp_path):
    found = refusal(tmp_path / "out", repo="a/b/c")
    assert "is no name of a repository" in str(found)


def test_the_hub_is_down(hub, served, tmp_path):
    hub.broken = True
    assert refusal(tmp_path / "out").problem in ("unreachable", "offline")


def test_nobody_listens(hub, served, tmp_path):
    hub.close()
    found = refusal(tmp_path / "out")
    assert found.problem == "unreachable" and "snakemake sources" in str(found)


def test_offline_and_never_fetched(cache, tmp_path):
    found = refusal(tmp_path / "out", revision=COMMIT)
    assert found.problem == "offline"
    assert f"model 'org/tiny' at '{COMMIT[:12]}' is not in the cache" in str(found)
    assert "HF_HUB_OFFLINE=1" in str(found)


def test_interrupted_and_then_offline(hub, served, tmp_path, monkeypatch):
    fetch(tmp_path / "out")
    (weights,) = (tmp_path / "hf").glob("hub/*/snapshots/*/model.safetensors")
    weights.unlink()
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert "only partly in the cache" in str(refusal(tmp_path / "again"))


def response(status):
    import httpx2

    return httpx2.Response(status, request=httpx2.Request("GET", "http://127.0.0.1"))


@pytest.mark.parametrize(
    ("error", "problem"),
    [
        (lambda: errors.GatedRepoError("x", response=response(403)), "gated"),
        (lambda: errors.DisabledRepoError("x", response=response(403)), "gated"),
        (lambda: errors.RepositoryNotFoundError("x", response=response(404)), "not found"),
        (lambda: errors.RevisionNotFoundError("x", response=response(404)), "revision"),
        (lambda: errors.LocalEntryNotFoundError("x"), "unreachable"),
        (lambda: errors.OfflineModeIsEnabled("x"), "unreachable"),
        (lambda: errors.HFValidationError("x"), "not found"),
        (lambda: errors.HfHubHTTPError("x", response=response(500)), "unreachable"),
        (lambda: ConnectionError("x"), "unreachable"),
    ],
)
def test_each_of_the_clients_errors(hub, error, problem):
    with pytest.raises(HubError) as found, hub_errors(Repository("dataset", "o/d", "main")):
        raise error()
    assert found.value.problem == problem


def test_a_token_that_the_hub_does_not_know(hub):
    with pytest.raises(HubError) as found, hub_errors(Repository("model", "o/m", "main")):
        raise errors.HfHubHTTPError("Invalid credentials", response=response(401))
    assert "does not accept the token" in str(found.value)
    assert found.value.problem == "refused" and "no such repository" not in str(found.value)


def test_other_errors_are_not_the_hubs(hub):
    with pytest.raises(ZeroDivisionError), hub_errors(Repository("model", "o/d", "main")):
        raise ZeroDivisionError
