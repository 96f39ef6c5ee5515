"""The crate: complete, valid for the crates' own validator, and free of this machine."""

import json
import platform
import shutil
import zipfile
from pathlib import Path

import pytest
from typer.testing import CliRunner

from kd.audit.target import table_target
from kd.cli import app
from kd.errors import ArtifactError
from kd.exports.crate import write_crate
from kd.exports.portable import portable_manifest, without_paths
from kd.exports.subject import ExportError, open_subject
from kd.provenance.canonical import digest, file_digest

NO_VALIDATOR = "roc-validator is not installed (it needs rich < 14): see docs/exports.md"

rocrate = pytest.importorskip("rocrate", reason="ro-crate-py writes crates: install .[exports]")


def export(world, out, **options):
    asked = {"full": False, "local_names": False, "licence": "", "agent": ""} | options
    return write_crate(open_subject(table_target(world.table)), out, **asked)


@pytest.fixture(scope="module")
def crate(finished, tmp_path_factory):
    out = tmp_path_factory.mktemp("crate") / "crate"
    export(finished, out, agent="A. Tester", licence="https://spdx.org/licenses/CC-BY-4.0")
    return out


@pytest.fixture(scope="module")
def graph(crate):
    content = json.loads((crate / "ro-crate-metadata.json").read_text(encoding="utf-8"))
    return {entity["@id"]: entity for entity in content["@graph"]}


def of_type(graph, kind):
    return [entity for entity in graph.values() if kind in [entity["@type"]]]


def test_every_file_has_the_digest_that_the_crate_gives_it(crate, graph):
    told = [entity for entity in graph.values() if "sha256" in entity and "/" in entity["@id"]]
    files = [entity for entity in told if entity["@type"] == "File"]
    assert len(files) > 20
    for entity in files:
        assert file_digest(crate / entity["@id"]) == entity["sha256"]


def test_every_file_of_the_crate_is_described(crate, graph):
    there = {file.relative_to(crate).as_posix() for file in crate.rglob("*") if file.is_file()}
    described = {name for name, e in graph.items() if "File" in e["@type"] or name in there}
    assert there == described - {"./"}


def test_every_stage_has_its_action(finished, graph):
    manifests = list(finished.results.rglob("*.manifest.json"))
    runs = [entity for entity in of_type(graph, "CreateAction") if entity["@id"] != "#run-workflow"]
    assert len(runs) == len(manifests) == len(of_type(graph, "ControlAction"))


def test_an_action_leads_from_the_table_to_the_rows(graph):
    made_by = {}
    for action in of_type(graph, "CreateAction"):
        results = action["result"] if isinstance(action["result"], list) else [action["result"]]
        if action["@id"] != "#run-workflow":
            made_by |= {result["@id"]: action for result in results}
    waiting, seen = ["results/tiny/tables/table2.csv"], set()
    while waiting:
        name = waiting.pop()
        seen.add(name)
        read = made_by.get(name, {}).get("object", [])
        waiting += [e["@id"] for e in (read if isinstance(read, list) else [read])]
    assert "results/tiny/data/squad/pretraining.parquet" in seen


def test_manifests_keep_their_identity(crate):
    files = list(crate.rglob("*.manifest.json"))
    for file in files:
        manifest = json.loads(file.read_text(encoding="utf-8"))
        assert manifest["identity"] == digest(manifest["hashed"])
    assert files


def test_nothing_names_this_machine(finished, crate):
    words = [str(finished.root), str(crate), platform.node()]
    for file in crate.rglob("*"):
        if file.suffix in (".json", ".md", ".csv", ".jsonl"):
            text = file.read_text(encoding="utf-8")
            context = json.loads(text).get("context", {}) if file.suffix == ".json" else {}
            assert context.get("host", "host-1") == "host-1"
            assert not [word for word in words[:2] if word in text], file
            assert f'"{words[2]}"' not in text, file


def test_names_are_left_where_they_are_asked_for(finished, tmp_path):
    scope = open_subject(table_target(finished.table))
    text = portable_manifest(scope, scope.tables[0].artifact, local_names=True)
    assert json.loads(text)["context"]["host"] == platform.node()


def test_a_place_in_the_parameters_is_refused(finished):
    scope = open_subject(table_target(finished.table))
    score = scope.of_stage("score")[0]
    score.spec["evaluation"]["bertscore"] = {"model": "/models/roberta"}
    with pytest.raises(ArtifactError, match="a place on this machine"):
        portable_manifest(scope, score, local_names=False)
    assert "/models/roberta" in portable_manifest(scope, score, local_names=True)


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("/opt/env/bin/kd", "kd"),
        ("read ~/cache/file.json, then stop", "read file.json, then stop"),
        ("https://example.org/a/b", "https://example.org/a/b"),
        ("results/micro/table.csv", "results/micro/table.csv"),
        ("yes/no", "yes/no"),
    ],
)
def test_paths_in_texts(text, left):
    assert without_paths({"a": [text]}) == {"a": [left]}


def test_the_same_results_give_the_same_description(finished, crate, tmp_path):
    export(
        finished,
        tmp_path / "again",
        agent="A. Tester",
        licence="https://spdx.org/licenses/CC-BY-4.0",
    )
    name = "ro-crate-metadata.json"
    assert (tmp_path / "again" / name).read_bytes() == (crate / name).read_bytes()


def test_a_full_crate_holds_up_in_the_audit(finished, tmp_path, monkeypatch):
    world = finished.copy(tmp_path / "world")
    out = tmp_path / "full"
    export(world, out, full=True)
    shutil.rmtree(world.root)  # nothing of it is needed any more
    monkeypatch.chdir(out)
    scope = open_subject(table_target(Path("results/tiny/tables/table2.csv")))
    assert len(scope.artifacts) == len(list(finished.results.rglob("*.manifest.json")))


def test_a_zip_holds_the_description(at_home, tmp_path):
    out = tmp_path / "table2.zip"
    done = CliRunner().invoke(app, ["export", "crate", "results/table2.csv", "--out", str(out)])
    assert done.exit_code == 0, done.output
    assert "ro-crate-metadata.json" in zipfile.ZipFile(out).namelist()


def test_nothing_is_overwritten(finished, crate):
    with pytest.raises(ExportError, match="exists already"):
        export(finished, crate)


def test_what_does_not_hold_is_not_exported(finished, tmp_path):
    world = finished.copy(tmp_path / "world")
    world.table.write_text(world.table.read_text().replace("1", "2", 1), encoding="utf-8")
    with pytest.raises(ArtifactError, match="Nothing is exported"):
        open_subject(table_target(world.table))


@pytest.mark.parametrize("full", [False, True])
def test_the_validator_finds_nothing_required_missing(finished, crate, tmp_path, full):
    pytest.importorskip("rocrate_validator", reason=NO_VALIDATOR)
    from tests.exports.crate_validation import findings

    if full:
        export(finished, tmp_path / "full", full=True)
    assert findings(tmp_path / "full" if full else crate, "provenance-run-crate", "REQUIRED") == []


def test_the_validator_can_say_no(crate, tmp_path):
    pytest.importorskip("rocrate_validator", reason=NO_VALIDATOR)
    from tests.exports.crate_validation import findings

    shutil.copytree(crate, tmp_path / "crate")
    file = tmp_path / "crate" / "ro-crate-metadata.json"
    content = json.loads(file.read_text(encoding="utf-8"))
    for entity in content["@graph"]:
        entity.pop("instrument", None)
    file.write_text(json.dumps(content), encoding="utf-8")
    assert findings(tmp_path / "crate", "provenance-run-crate", "REQUIRED")
