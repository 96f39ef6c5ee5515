"""Which container image a manifest names."""

import hashlib

import pytest

from kd.provenance.environment import container_image, context

NAMES = ("KD_CONTAINER_DIGEST", "APPTAINER_CONTAINER", "SINGULARITY_CONTAINER")


@pytest.fixture(autouse=True)
def outside(monkeypatch):
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)


def test_outside_of_a_container_there_is_none():
    assert container_image() is None
    assert context()["container"] is None


def test_the_runtimes_word_comes_first(monkeypatch, tmp_path):
    monkeypatch.setenv("APPTAINER_CONTAINER", str(tmp_path / "kd.sif"))
    monkeypatch.setenv("KD_CONTAINER_DIGEST", "sha256:abc")
    assert container_image() == "sha256:abc"


@pytest.mark.parametrize("name", NAMES[1:])
def test_an_image_that_is_visible_is_hashed(monkeypatch, tmp_path, name):
    image = tmp_path / f"{name}.sif"
    image.write_bytes(b"an image")
    monkeypatch.setenv(name, str(image))
    assert container_image() == f"sha256:{hashlib.sha256(b'an image').hexdigest()}"


def test_of_an_image_that_is_not_visible_the_name_is_known(monkeypatch):
    monkeypatch.setenv("APPTAINER_CONTAINER", "/images/kd.sif")
    assert container_image() == "name:kd.sif"
