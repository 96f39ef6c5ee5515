"""Making cells again and saying how alike they came out: in bytes, in predictions, in score."""

import random
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

from kd.audit.chain import Artifact
from kd.audit.differences import fields_that_differ
from kd.audit.execution import Scratch, run_again
from kd.audit.findings import Finding, Status
from kd.audit.notes import Voice, counted, short
from kd.audit.scope import Evaluation, Repeat, Scope
from kd.errors import KdError
from kd.evaluation.predictions import read_predictions
from kd.evaluation.scoring import Scores, read_scores
from kd.experiment.layout import scores_path
from kd.tables.statistics import FEWEST_RUNS, prediction_of_runs

# Which stages are run again, by where the repeat starts.
STARTS: dict[str, tuple[str, ...]] = {
    "rows": ("data", "pretrain", "answer", "extract", "distill", "predict", "score"),
    "answers": ("answer", "extract", "distill", "predict", "score"),
    "logits": ("extract", "distill", "predict", "score"),
    "student": ("distill", "predict", "score"),
    "predictions": ("predict", "score"),
}
# The parts of a manifest in the order in which one explains the next.
_PARTS = ("code", "spec", "numerics", "inputs", "outputs")

Tier = Literal["identical bytes", "identical predictions", "inside the prediction interval", "none"]


@dataclass(frozen=True)
class Outcome:
    """How a repeated cell came out."""

    tier: Tier
    first_difference: str  # artifact, field and both values; empty where nothing differs
    before: float | None
    after: float | None
    comparable: bool  # same code, parameters, versions and host: the same bytes are promised


def repeat_cells(voice: Voice, repeat: Repeat) -> Iterator[Finding]:
    """Run the chosen cells again and yield one finding each.

    Same code, same versions, same host: then the same bytes are promised on a CPU, and another
    result fails the audit, inside the prediction interval or not. Elsewhere only a result
    outside the interval is worth a warning.
    """
    for evaluation in choose(voice.scope, repeat):
        try:
            outcome = _repeat(voice.scope, evaluation, repeat)
        except KdError as error:
            yield voice.about(
                "fail", "repeat", evaluation.score, f"it cannot be made again: {error}"
            )
        else:
            yield _finding(voice, evaluation, repeat, outcome)


def choose(scope: Scope, repeat: Repeat) -> list[Evaluation]:
    """The evaluations to repeat: the cheapest ones, or random ones, among those in scope."""
    runs = [evaluation for evaluation in scope.evaluations if evaluation.run is not None]
    candidates = runs or scope.evaluations
    if repeat.pick == "random":
        count = min(repeat.count, len(candidates))
        return random.Random(repeat.seed).sample(candidates, count)
    costs = {one.place: _seconds(scope, one, repeat.start) for one in candidates}
    return sorted(candidates, key=lambda one: (costs[one.place], one.place))[: repeat.count]


def _seconds(scope: Scope, evaluation: Evaluation, start: str) -> float:
    return sum(artifact.seconds for artifact in _again(scope, evaluation, start))


def _again(scope: Scope, evaluation: Evaluation, start: str) -> list[Artifact]:
    """The artifacts of an evaluation that a repeat makes again."""
    found = scope.chain.closure([evaluation.score])
    return [artifact for artifact in found if artifact.stage in STARTS[start]]


def _repeat(scope: Scope, evaluation: Evaluation, repeat: Repeat) -> Outcome:
    again = _again(scope, evaluation, repeat.start)
    with TemporaryDirectory(prefix="kd-repeat-") as folder:
        root = Path(folder)
        scratch = Scratch(scope, root, frozenset(artifact.key for artifact in again))
        made = run_again(scratch, again)
        outcome = _compare(scope, evaluation, root, list(zip(again, made, strict=True)))
        if repeat.keep is not None:
            shutil.copytree(root, repeat.keep, dirs_exist_ok=True)
    return outcome


def _compare(
    scope: Scope, evaluation: Evaluation, root: Path, pairs: Sequence[tuple[Artifact, Artifact]]
) -> Outcome:
    metric = _metric(scope, evaluation)
    before, after = (
        read_scores(folder / evaluation.place / "scores.json") for folder in (scope.results, root)
    )
    return Outcome(
        tier=_tier(scope, evaluation, root, pairs, after),
        first_difference=_first_difference(pairs),
        before=before.mean(metric),
        after=after.mean(metric),
        comparable=all(_made_alike(old, new) for old, new in pairs),
    )


def _made_alike(old: Artifact, new: Artifact) -> bool:
    parts = ("code", "spec", "numerics")
    return old.context.get("host") == new.context.get("host") and all(
        old.hashed.get(part) == new.hashed.get(part) for part in parts
    )


def _tier(
    scope: Scope,
    evaluation: Evaluation,
    root: Path,
    pairs: Sequence[tuple[Artifact, Artifact]],
    after: Scores,
) -> Tier:
    if all(old.outputs == new.outputs for old, new in pairs):
        return "identical bytes"
    answers = [
        [(row.id, row.prediction) for row in read_predictions(folder / "predictions.parquet")]
        for folder in (scope.results / evaluation.place, root / evaluation.place)
    ]
    if answers[0] == answers[1]:
        return "identical predictions"
    metric = _metric(scope, evaluation)
    interval, value = (
        prediction_of_runs(_over_seeds(scope, evaluation, metric)),
        after.mean(metric),
    )
    if interval is not None and value is not None and interval[0] <= value <= interval[1]:
        return "inside the prediction interval"
    return "none"


def _metric(scope: Scope, evaluation: Evaluation) -> str:
    """The metric that the table shows, or the first of those that were computed."""
    for view in scope.tables:
        if view.spec is not None and evaluation.dataset in view.spec.metrics:
            return view.spec.metrics[evaluation.dataset]
    return str(next(iter(evaluation.score.spec.get("evaluation", {}).get("metrics", [])), "f1"))


def _over_seeds(scope: Scope, evaluation: Evaluation, metric: str) -> list[float]:
    """The recorded values of a cell's seeds."""
    run = evaluation.run
    if run is None:
        return []
    folder = scope.results / run.path
    siblings = sorted(folder.parent.glob("s*"))
    paths = [
        scope.results / scores_path(found.relative_to(scope.results).as_posix(), evaluation.dataset)
        for found in siblings
    ]
    means = (read_scores(path).mean(metric) for path in paths if path.is_file())
    return [mean for mean in means if mean is not None]


def _first_difference(pairs: Sequence[tuple[Artifact, Artifact]]) -> str:
    """The first field that differs, in the order of the chain and of `_PARTS`."""
    for old, new in pairs:
        for part in _PARTS:
            found = fields_that_differ(_part(old, part), _part(new, part))
            for name, (was, now) in found.items():
                return f"{old.key}: {name} was {short(was)}, is {short(now)}"
    return ""


def _part(artifact: Artifact, part: str) -> dict[str, Any]:
    return {part: artifact.hashed.get(part)}


def _finding(voice: Voice, evaluation: Evaluation, repeat: Repeat, outcome: Outcome) -> Finding:
    told = {
        "identical bytes": "identical bytes (tier 1)",
        "identical predictions": "identical predictions in other bytes (tier 2)",
        "inside the prediction interval": "another score, inside the prediction interval (tier 3)",
        "none": "another result (no tier)",
    }[outcome.tier]
    seeds = len(_over_seeds(voice.scope, evaluation, _metric(voice.scope, evaluation)))
    unjudged = (
        f"; {counted(seeds, 'seed')} are too few for a prediction interval"
        if outcome.tier == "none" and seeds < FEWEST_RUNS
        else ""
    )
    differing = outcome.first_difference
    evidence = f"made again from {repeat.start}: {told}{unjudged}" + (
        f"; first difference: {differing}" if differing else ""
    )
    status = _status(outcome, evaluation)
    return voice.about(
        status,
        "repeat",
        evaluation.score,
        evidence,
        "" if status == "pass" else f"kd explain {voice.target_of(evaluation.score)}",
        tier=outcome.tier,
        before=outcome.before,
        after=outcome.after,
    )


def _status(outcome: Outcome, evaluation: Evaluation) -> Status:
    if outcome.tier in ("identical bytes", "identical predictions"):
        return "pass"
    if outcome.comparable and evaluation.predict.numerics.get("device") == "cpu":
        return "fail"
    return "warn" if outcome.tier == "none" else "pass"
