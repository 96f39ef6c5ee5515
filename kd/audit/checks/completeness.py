"""C. Completeness: every declared cell, seed and metric is there, and nothing else."""

from collections.abc import Iterator, Sequence
from itertools import chain as joined
from typing import Any

from kd.audit.findings import Finding
from kd.audit.notes import COMPLETENESS, Voice, counted, some
from kd.audit.places import run_at
from kd.audit.scope import Scope, TableView
from kd.errors import KdError
from kd.evaluation.scoring import Missing, read_scores
from kd.experiment.expansion import all_runs, table_methods, table_of, table_runs, table_scores
from kd.experiment.schema import Experiment
from kd.experiment.stages import table_spec

_CELL_AXES = ("dataset", "test", "teacher", "student", "fraction", "metric", "method")


def check(scope: Scope) -> list[Finding]:
    """Lines, methods, seeds, runs and metrics against what the experiment declares."""
    voice = Voice(COMPLETENESS, scope)
    rules = (_tables, _runs, _metrics, _undeclared, _unfinished)
    return list(joined.from_iterable(rule(voice) for rule in rules))


def _tables(voice: Voice) -> Iterator[Finding]:
    scope = voice.scope
    if scope.experiment is None:
        yield voice.not_applicable("declared cells", "the experiment as it is now is not known")
        return
    for view in scope.tables:
        if view.spec is None:
            continue
        if view.artifact.name not in scope.experiment.tables:
            yield voice.about(
                "warn", "declared cells", view.artifact, "the experiment no longer declares it", ""
            )
            continue
        problems = list(_cell_problems(voice, view, scope.experiment))
        yield from problems
        if not problems:
            lines, seeds = (
                counted(len(view.spec.rows), "line"),
                counted(len(view.spec.seeds), "seed"),
            )
            yield voice.passed(
                "declared cells", f"{view.artifact.name}: {lines} and {seeds}, as declared"
            )
    yield from _absent_tables(voice, scope.experiment)


def _absent_tables(voice: Voice, experiment: Experiment) -> Iterator[Finding]:
    there = {view.artifact.name for view in voice.scope.tables}
    absent = [name for name in experiment.tables if name not in there]
    if voice.scope.target.kind == "experiment" and absent:
        files = [f"results/{voice.scope.results.name}/tables/{name}.csv" for name in absent]
        yield voice.say(
            "warn",
            "declared tables",
            some(absent),
            f"{counted(len(absent), 'declared table')} not made",
            then=f"snakemake {' '.join(files)}",
        )


def _cell_problems(voice: Voice, view: TableView, experiment: Experiment) -> Iterator[Finding]:
    """Lines, methods and seeds that a table lacks, or has besides those that are declared."""
    assert view.spec is not None
    declared = table_spec(experiment, view.artifact.name)
    compared = {
        "line": ([_line(row) for row in view.spec.rows], [_line(row) for row in declared.rows]),
        "method": (
            view.spec.methods,
            table_methods(experiment, table_of(experiment, view.artifact.name)),
        ),
        "seed": ([str(seed) for seed in view.spec.seeds], [str(seed) for seed in declared.seeds]),
    }
    for what, (there, wanted) in compared.items():
        lacking = [one for one in wanted if one not in there]
        extra = [one for one in there if one not in wanted]
        if lacking:
            yield voice.about(
                "fail",
                "declared cells",
                view.artifact,
                f"it lacks {counted(len(lacking), 'declared ' + what)}: {some(lacking)} "
                f"({len(there)} of {len(wanted)})",
                voice.make_all(),
            )
        if extra:
            yield voice.about(
                "warn",
                "declared cells",
                view.artifact,
                f"it has {counted(len(extra), what)} that the experiment does not declare: "
                f"{some(extra)}. If it was made with --config, audit it with the same --config",
                f"kd audit … --config {what}s=…" if what == "seed" else "",
            )


def _line(row: dict[str, Any]) -> str:
    return "/".join(str(row[axis]) for axis in _CELL_AXES if row.get(axis) is not None)


def _runs(voice: Voice) -> Iterator[Finding]:
    """Declared score files that are not there, or that the table does not rest on."""
    scope = voice.scope
    wanted = _declared_scores(scope)
    if not wanted:
        return
    absent = [path for path in wanted if not (scope.results / path).is_file()]
    if absent:
        yield voice.say(
            "fail",
            "runs",
            absent[0] if len(absent) == 1 else some(absent),
            f"{counted(len(absent), 'declared file of scores', 'declared files of scores')} of "
            f"{len(wanted)} not there",
            artifacts=[scope.chain.maker(path) for path in absent],
            then=voice.make_all(),
            numbers={"absent": list(absent)},
        )
    else:
        yield voice.passed("runs", f"{counted(len(wanted), 'declared evaluation')}, all there")


def _declared_scores(scope: Scope) -> list[str]:
    if scope.experiment is None or scope.target.cell:
        return []
    names = [view.artifact.name for view in scope.tables]
    known = [name for name in names if name in scope.experiment.tables]
    paths = (path for name in known for path in table_scores(scope.experiment, name))
    return list(dict.fromkeys(paths))


def _metrics(voice: Voice) -> Iterator[Finding]:
    """Metrics that the specification of the scores asks for, and that have no value."""
    lacking: dict[str, list[str]] = {}
    compared = 0
    for evaluation in voice.scope.evaluations:
        try:
            scores = read_scores(voice.scope.results / evaluation.place / "scores.json")
        except KdError:
            continue  # integrity says why
        compared += 1
        for metric in evaluation.score.spec.get("evaluation", {}).get("metrics", []):
            found = scores.metrics.get(metric)
            if found is None or isinstance(found, Missing):
                why = found.unavailable if isinstance(found, Missing) else "it was not computed"
                lacking.setdefault(f"{metric}: {why}", []).append(evaluation.place)
    for what, places in lacking.items():
        yield voice.say(
            "warn",
            "metrics",
            some(places),
            f"{counted(len(places), 'evaluation')} without {what}",
            then=voice.make_all(),
        )
    if compared and not lacking:
        yield voice.passed("metrics", f"{counted(compared, 'evaluation')} with every metric")


def _undeclared(voice: Voice) -> Iterator[Finding]:
    """Runs that lie in the results and belong to no declared table."""
    scope = voice.scope
    if scope.experiment is None or scope.target.kind != "experiment":
        return
    declared = {run.path for run in all_runs(scope.experiment)}
    folders = {artifact.folder for artifact in scope.of_stage("distill")}
    extra = sorted(folder for folder in folders - declared if run_at(folder))
    if extra:
        yield voice.say(
            "warn",
            "undeclared runs",
            some(extra),
            f"{counted(len(extra), 'run')} that no table declares: what became of them?",
        )


def _unfinished(voice: Voice) -> Iterator[Finding]:
    """Runs of which only a checkpoint is left: they failed, or were stopped."""
    scope = voice.scope
    root = scope.results.resolve().parent.parent / "checkpoints" / scope.results.name
    left = sorted({file.parents[1] for file in root.glob("runs/**/step-*/state.json")})
    wanted = _wanted_runs(scope)
    names = [folder.parent.relative_to(root).as_posix() for folder in left]
    relevant = [name for name in names if wanted is None or name in wanted]
    if relevant:
        yield voice.say(
            "warn",
            "failed runs",
            some(relevant),
            f"{counted(len(relevant), 'run')} left a checkpoint: failed, stopped, or of an earlier "
            "specification",
            then=voice.make_all(),
        )
    else:
        yield voice.passed("failed runs", "no run in scope left a checkpoint behind")


def _wanted_runs(scope: Scope) -> Sequence[str] | None:
    """Folders of the runs that the target is about; None: all."""
    if scope.target.kind == "experiment":
        return None
    if scope.experiment is None:
        return [artifact.folder for artifact in scope.of_stage("distill")]
    known = [v.artifact.name for v in scope.tables if v.artifact.name in scope.experiment.tables]
    return [run.path for name in known for run in table_runs(scope.experiment, name)]
