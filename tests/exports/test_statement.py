"""The provenance statement, against the published shapes of in-toto and SLSA."""

import json
from typing import Annotated, Any, Literal

import pytest
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, model_validator
from typer.testing import CliRunner

from kd.audit.target import experiment_target, table_target
from kd.cli import app
from kd.errors import ArtifactError, KdError
from kd.exports.statement import statement
from kd.exports.subject import open_subject
from kd.provenance.canonical import file_digest

Uri = Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9+.-]*:\S+$")]
DigestSet = Annotated[
    dict[str, Annotated[str, Field(pattern=r"^[0-9a-f]{40,128}$")]], Field(min_length=1)
]


class Shape(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Resource(Shape):
    """in-toto's ResourceDescriptor: one of uri, digest and content is required."""

    name: str | None = None
    uri: Uri | None = None
    digest: DigestSet | None = None
    content: str | None = None
    downloadLocation: Uri | None = None
    mediaType: str | None = None
    annotations: dict[str, Any] | None = None

    @model_validator(mode="after")
    def _known(self):
        if self.uri is None and self.digest is None and self.content is None:
            raise ValueError("neither uri nor digest nor content")
        return self


class Subject(Resource):
    name: str
    digest: DigestSet


class BuildDefinition(Shape):
    buildType: Uri
    externalParameters: dict[str, Any]
    internalParameters: dict[str, Any] = {}
    resolvedDependencies: list[Resource] = []


class Builder(Shape):
    id: Uri
    version: dict[str, str] = {}
    builderDependencies: list[Resource] = []


class Metadata(Shape):
    invocationId: str | None = None
    startedOn: AwareDatetime | None = None
    finishedOn: AwareDatetime | None = None


class RunDetails(Shape):
    builder: Builder
    metadata: Metadata = Metadata()
    byproducts: list[Resource] = []


class Provenance(Shape):
    buildDefinition: BuildDefinition
    runDetails: RunDetails


class Statement(Shape):
    type_: Literal["https://in-toto.io/Statement/v1"] = Field(alias="_type")
    subject: list[Subject] = Field(min_length=1)
    predicateType: Literal["https://slsa.dev/provenance/v1"]
    predicate: Provenance


@pytest.fixture(scope="module")
def scope(finished):
    return open_subject(table_target(finished.table))


@pytest.fixture(scope="module")
def made(scope):
    return statement(scope)


def test_it_has_the_published_shape(made):
    found = Statement.model_validate_json(json.dumps(made))
    assert found.predicate.runDetails.metadata.finishedOn is not None


def test_the_shape_can_be_missed(made):
    broken = json.loads(json.dumps(made))
    del broken["predicate"]["buildDefinition"]["buildType"]
    with pytest.raises(ValueError, match="buildType"):
        Statement.model_validate_json(json.dumps(broken))


def test_subjects_are_the_tables_files(finished, made):
    names = {entry["name"] for entry in made["subject"]}
    assert {"table2.csv", "table2.md", "table2.json"} <= names
    for entry in made["subject"]:
        assert file_digest(finished.table.with_name(entry["name"])) == entry["digest"]["sha256"]


def test_every_input_of_every_stage_is_a_dependency(scope, made):
    named = {
        entry["name"] for entry in made["predicate"]["buildDefinition"]["resolvedDependencies"]
    }
    for artifact in scope.artifacts:
        for source in scope.chain.sources(artifact):
            assert source.path in named or source.path.rpartition("/")[2] in named


def test_commit_and_code_are_dependencies(scope, made):
    found = made["predicate"]["buildDefinition"]["resolvedDependencies"]
    digests = {value for entry in found for value in entry["digest"].values()}
    assert scope.artifacts[0].context["commit"] in digests
    assert {artifact.hashed["code"] for artifact in scope.artifacts} <= digests


def test_the_parameters_are_complete(scope, made):
    stages = made["predicate"]["buildDefinition"]["externalParameters"]["stages"]
    told = {key for entries in stages.values() for entry in entries for key in entry["artifacts"]}
    assert told == {artifact.key for artifact in scope.artifacts}


def test_it_is_about_one_table(finished, monkeypatch):
    monkeypatch.chdir(finished.root)
    scope = open_subject(experiment_target("tiny"))
    scope.tables *= 2
    with pytest.raises(ArtifactError, match="one table"):
        statement(scope)


def test_the_command_prints_json(at_home):
    done = CliRunner().invoke(app, ["export", "provenance", "results/table2.csv"])
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["predicateType"].startswith("https://slsa.dev/")
    assert str(at_home.root) not in done.stdout


def test_a_file_that_exists_is_not_overwritten(at_home):
    at_home.root.joinpath("kept.json").write_text("kept")
    done = CliRunner().invoke(
        app, ["export", "provenance", "results/table2.csv", "--out", "kept.json"]
    )
    assert isinstance(done.exception, KdError)
    assert "exists already" in str(done.exception)
    assert at_home.root.joinpath("kept.json").read_text() == "kept"
