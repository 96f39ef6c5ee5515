"""J. Projection: MLflow and the README say what the results say."""

from collections.abc import Iterator
from itertools import chain as joined

from kd.audit.findings import Finding
from kd.audit.notes import PROJECTION, Voice, counted, short, some
from kd.audit.readme import readme_figures
from kd.audit.scope import Evaluation, Scope
from kd.audit.tracked import TrackedRun, read_tracked
from kd.errors import KdError
from kd.evaluation.scoring import read_scores


def check(scope: Scope) -> list[Finding]:
    """MLflow's runs and the README's figures."""
    voice = Voice(PROJECTION, scope)
    return list(joined.from_iterable(rule(voice) for rule in (_mlflow, readme_figures)))


def _mlflow(voice: Voice) -> Iterator[Finding]:
    scope = voice.scope
    database = scope.results / "mlflow.db"
    tracked = [v.artifact for v in scope.tables if _stamp_of(scope, v.artifact.name)]
    if not database.is_file():
        yield voice.not_applicable(
            "MLflow", "no mlflow.db in the results: not tracked, or on a server", _track(voice)
        )
        return
    if scope.tables and not tracked:
        yield voice.not_applicable("MLflow", "no table in scope is tracked yet", _track(voice))
        return
    try:
        runs = read_tracked(database)
    except KdError as error:
        yield voice.say("fail", "MLflow", database.name, str(error), then=_track(voice))
        return
    sound = 0
    for evaluation in scope.evaluations:
        problem = _problem(scope, evaluation, runs)
        sound += problem is None
        if problem:
            yield voice.about("fail", "MLflow", evaluation.score, problem, _track(voice))
    if sound:
        yield voice.passed("MLflow", f"{counted(sound, 'evaluation')} with the same values there")


def _stamp_of(scope: Scope, table: str) -> bool:
    return (scope.results / "tables" / f"{table}.tracked.json").is_file()


def _track(voice: Voice) -> str:
    name = voice.scope.results.name
    tables = [view.artifact.name for view in voice.scope.tables] or ["TABLE"]
    return f"snakemake --force results/{name}/tables/{tables[0]}.tracked.json"


def _problem(scope: Scope, evaluation: Evaluation, runs: dict[str, list[TrackedRun]]) -> str | None:
    """What MLflow lacks, or says otherwise, of one evaluation."""
    path = evaluation.subject if evaluation.run else evaluation.place
    tag = f"kd.scores.{evaluation.dataset}"
    found = runs.get(path, [])
    if not found:
        return f"MLflow has no run for {path}"
    same = [run for run in found if run.tags.get(tag) == evaluation.score.identity]
    if not same:
        stated, here = short(found[0].tags.get(tag)), short(evaluation.score.identity)
        return f"MLflow's run tells of other scores: identity {stated}, here {here}"
    return _metric_problem(scope, evaluation, same[0])


def _metric_problem(scope: Scope, evaluation: Evaluation, run: TrackedRun) -> str | None:
    try:
        scores = read_scores(scope.results / evaluation.place / "scores.json")
    except KdError:
        return None  # integrity says why
    other = [
        f"{name} {run.metrics.get(f'test/{evaluation.dataset}/{name}')}, here {scores.mean(name)}"
        for name in sorted(scores.metrics)
        if scores.mean(name) is not None
        and run.metrics.get(f"test/{evaluation.dataset}/{name}") != scores.mean(name)
    ]
    return f"MLflow says {some(other)}" if other else None
