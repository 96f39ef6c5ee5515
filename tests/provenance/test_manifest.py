"""Manifests: identity covers history, and nothing altered is accepted as input."""

import json

import pytest

from kd.errors import ArtifactError
from kd.experiment.base import Strict
from kd.provenance.manifest import StageRecord, path_digest, read_manifest


class Spec(Strict):
    value: int


def make(folder, name, value=1, inputs=None):
    record = StageRecord(name, Spec(value=value), inputs or {}, ("kd.data.rows",))
    out = folder / f"{name}.txt"
    out.write_text(f"{name} {value}", encoding="utf-8")
    record.write(out)
    return out, read_manifest(folder / f"{name}.manifest.json")


def test_identity_is_independent_of_time_and_place(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    assert make(tmp_path / "a", "x")[1]["identity"] == make(tmp_path / "b", "x")[1]["identity"]


def test_identity_covers_the_history_of_the_inputs(tmp_path):
    found = []
    for value in (1, 2):
        folder = tmp_path / str(value)
        folder.mkdir()
        source, _ = make(folder, "source", value)
        source_bytes = "same bytes"
        source.write_text(source_bytes, encoding="utf-8")
        manifest = json.loads((folder / "source.manifest.json").read_text())
        assert manifest["hashed"]["spec"] == {"value": value}
        other = folder / "next"
        other.mkdir()
        with pytest.raises(ArtifactError, match="changed since stage 'source' wrote it"):
            make(other, "y", inputs={"source": source})
        source.write_text(f"source {value}", encoding="utf-8")
        found.append(make(other, "y", inputs={"source": source})[1])
    first, second = (manifest["hashed"]["inputs"]["source"]["identity"] for manifest in found)
    assert first != second
    assert found[0]["identity"] != found[1]["identity"]


def test_an_altered_manifest_is_refused(tmp_path):
    _, manifest = make(tmp_path, "x")
    manifest["hashed"]["spec"]["value"] = 7
    (tmp_path / "x.manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    with pytest.raises(ArtifactError, match="does not match its identity"):
        read_manifest(tmp_path / "x.manifest.json")


def test_an_input_without_a_manifest_is_refused_unless_it_comes_from_outside(tmp_path):
    source = tmp_path / "source.txt"
    source.write_text("rows")
    (tmp_path / "out").mkdir()
    with pytest.raises(ArtifactError, match="no manifest beside it"):
        make(tmp_path / "out", "x", inputs={"rows": source})
    record = StageRecord("x", Spec(value=1), {"rows": source}, (), external=("rows",))
    assert record.inputs["rows"]["identity"] is None


def test_a_missing_input_is_refused(tmp_path):
    with pytest.raises(ArtifactError, match="missing, needed as rows"):
        make(tmp_path, "x", inputs={"rows": tmp_path / "none"})


def test_a_folder_digest_sees_content_and_names(tmp_path):
    (tmp_path / "a").write_text("1")
    first = path_digest(tmp_path)
    (tmp_path / "a").rename(tmp_path / "b")
    assert path_digest(tmp_path) != first
    (tmp_path / "b").rename(tmp_path / "a")
    assert path_digest(tmp_path) == first
