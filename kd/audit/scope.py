"""What the checks look at: a target's artifacts and tables, and the experiment as it is now."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from kd.audit.chain import SUFFIX, Artifact, Chain
from kd.audit.places import CHART, run_at, split_evaluation, writer_of
from kd.audit.target import Target
from kd.errors import ArtifactError, KdError
from kd.experiment.expansion import table_scores
from kd.experiment.layout import Run
from kd.experiment.loading import find_experiment, load_experiment
from kd.experiment.schema import Experiment
from kd.experiment.stages import TableSpec
from kd.provenance.code import PACKAGE_ROOT
from kd.tables.cells import Line, build_lines

PICKS = ("cheapest", "random")


@dataclass(frozen=True)
class Repeat:
    """How many cells are made again, which ones, and from which stage on."""

    count: int
    start: str = "student"
    pick: str = "cheapest"  # one of PICKS
    seed: int = 0
    keep: Path | None = None  # where to leave what was made; by default it is deleted


@dataclass(frozen=True)
class Settings:
    """What the caller asks of an audit, besides its target."""

    experiment: str | None = None  # a name or a file; by default the results folder's name
    overrides: dict[str, Any] = field(default_factory=dict)  # as in `snakemake --config`
    expect: str | None = None
    tolerance: float = 1.0  # points between a published value and ours
    workflow: bool = False  # ask Snakemake, too
    repeat: Repeat | None = None
    checkout: Path = PACKAGE_ROOT


@dataclass(frozen=True)
class TableView:
    """A table: its artifact, its specification and, where its scores can be read, its lines."""

    artifact: Artifact
    spec: TableSpec | None
    lines: list[Line]
    problem: str = ""  # why there is no specification, or why there are no lines


@dataclass(frozen=True)
class Evaluation:
    """A model's answers to the test rows of a dataset, and their scores."""

    subject: str
    dataset: str
    predict: Artifact
    score: Artifact

    @property
    def run(self) -> Run | None:
        """The distillation that is evaluated; None for teachers and native students."""
        return run_at(self.subject)

    @property
    def place(self) -> str:
        """Its folder below the results folder."""
        return f"{self.subject}/eval/{self.dataset}"


@dataclass
class Scope:
    """Everything the checks read. Built once an audit; nothing in it is ever written."""

    target: Target
    settings: Settings
    chain: Chain
    tables: list[TableView]
    artifacts: list[Artifact]  # what was read before what was made of it
    experiment: Experiment | None
    no_experiment: str  # why there is none

    @property
    def results(self) -> Path:
        """The experiment's results folder."""
        return self.target.results

    def of_stage(self, stage: str) -> list[Artifact]:
        """The artifacts of one stage."""
        return [artifact for artifact in self.artifacts if artifact.stage == stage]

    @cached_property
    def evaluations(self) -> list[Evaluation]:
        """The evaluations in scope, in the order of the chain."""
        return [
            Evaluation(
                *split_evaluation(score.folder), self.chain.artifact(score.folder, "predict"), score
            )
            for score in self.of_stage("score")
        ]

    @property
    def sinks(self) -> list[Artifact]:
        """The artifacts that nothing else in scope was made from."""
        read = {found.key for one in self.artifacts for found in self.chain.parents(one)}
        return [artifact for artifact in self.artifacts if artifact.key not in read]

    def ancestors(self, artifact: Artifact) -> set[str]:
        """Keys of all that an artifact was made from."""
        return {found.key for found in self.chain.closure([artifact])} - {artifact.key}


def open_scope(target: Target, settings: Settings) -> Scope:
    """Read the manifests behind a target.

    Raises:
        ArtifactError: no cell or artifact matches.
        ExperimentError: an experiment was named that cannot be read.
    """
    experiment, problem = _experiment(target, settings)
    chain = Chain(target.results)
    tables = [_view(chain, name) for name in _table_names(target)]
    ends = list(_ends(target, chain, tables, experiment))
    artifacts = chain.closure(ends)
    if target.cell:
        artifacts += [view.artifact for view in tables]
    if not any(artifact.content for artifact in artifacts):
        raise ArtifactError(f"{target.results}: no manifest to audit for {target.title()}.")
    return Scope(target, settings, chain, tables, artifacts, experiment, problem)


def _experiment(target: Target, settings: Settings) -> tuple[Experiment | None, str]:
    """The experiment as its file says now. A file that was named must be there."""
    name = settings.experiment or target.results.name
    try:
        return load_experiment(find_experiment(name), settings.overrides), ""
    except KdError as error:
        if settings.experiment or settings.overrides:
            raise
        return None, str(error).splitlines()[0]


def _table_names(target: Target) -> list[str]:
    if target.kind == "table":
        return [target.name]
    if target.kind == "run":
        folder, _, name = target.name.partition("/")
        return [name] if folder == "tables" and name else []
    manifests = sorted((target.results / "tables").glob(f"*{SUFFIX}"))
    names = [file.name.removesuffix(SUFFIX) for file in manifests]
    return [name for name in names if not name.endswith(CHART)]


def _view(chain: Chain, name: str) -> TableView:
    artifact = chain.artifact("tables", name)
    if not artifact.content:
        return TableView(artifact, None, [], artifact.problem or "")
    try:
        spec = TableSpec.model_validate_json(json.dumps(artifact.spec))
    except ValidationError as error:
        key = ".".join(str(part) for part in error.errors()[0]["loc"])
        return TableView(artifact, None, [], f"its specification is of another version ('{key}')")
    try:
        return TableView(artifact, spec, build_lines(spec, chain.results))
    except (ArtifactError, KeyError, TypeError, AttributeError) as error:
        return TableView(artifact, spec, [], str(error))


def _ends(
    target: Target, chain: Chain, tables: list[TableView], experiment: Experiment | None
) -> Iterator[Artifact]:
    """Where the walk back to the rows starts."""
    if target.kind == "run":
        yield from _below(chain, chain.results / target.name)
        return
    if target.cell:
        for view in tables:
            yield from (_score(chain, path) for path in _cell_scores(view, target))
        return
    for view in tables:
        yield from _declared(chain, view, experiment)
        yield view.artifact
        yield from _charts(chain, view)
    if target.kind == "experiment":
        yield from _below(chain, chain.results)


def _declared(chain: Chain, view: TableView, experiment: Experiment | None) -> Iterator[Artifact]:
    """Scores that the experiment wants in this table and that are there, listed by it or not."""
    if experiment is not None and view.artifact.name in experiment.tables:
        for path in table_scores(experiment, view.artifact.name):
            if (chain.results / path).exists():
                yield _score(chain, path)


def _charts(chain: Chain, view: TableView) -> Iterator[Artifact]:
    """The table's charts, where they were drawn."""
    found = chain.artifact(view.artifact.folder, f"{view.artifact.name}{CHART}")
    if not found.missing:
        yield found


def _below(chain: Chain, folder: Path) -> Iterator[Artifact]:
    """All artifacts in a folder and below, a projection of them elsewhere aside."""
    for file in sorted(folder.rglob(f"*{SUFFIX}")):
        inside = file.relative_to(chain.results)
        if inside.parts[0] != "mlruns":
            yield chain.artifact(inside.parent.as_posix(), file.name.removesuffix(SUFFIX))


def _score(chain: Chain, path: str) -> Artifact:
    writer = writer_of(path)
    assert writer is not None, path
    return chain.artifact(*writer)


def _cell_scores(view: TableView, target: Target) -> list[str]:
    """Score files of the cells that a target names.

    Raises:
        ArtifactError: there is no such cell.
    """
    found = [
        path
        for line in view.lines
        for column, cell in line.cells.items()
        if not column.startswith("gain")
        for path in cell.scores
        if _matches(line, column, path, target.cell)
    ]
    if not found:
        why = f" ({view.problem})" if view.problem else ""
        wanted = ", ".join(f"{key}={value}" for key, value in target.cell.items())
        raise ArtifactError(f"{target.name}: no cell is {wanted}{why}.")
    return list(dict.fromkeys(found))


def _matches(line: Line, column: str, path: str, wanted: dict[str, str]) -> bool:
    run = run_at(path.rpartition("/")[0])
    place = {name: str(value) for name, value in line.axes.items()} | {"method": column}
    if run is not None:
        place |= {"method": run.method, "seed": str(run.seed)}
    return all(place.get(key) == value for key, value in wanted.items())
