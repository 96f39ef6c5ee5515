"""Claims that are refused: they name what is not there, or no scores could decide them."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import get_args

from kd.errors import nearest
from kd.experiment.base import Curve
from kd.experiment.claims import AXES, SEEDLESS, Claim, Columns, Pair, Place, claim_pairs, trends
from kd.experiment.metrics import comparable, joined, metric_named


def claim_findings(
    key: str, claim: Claim, columns: Columns, metrics: Mapping[str, str] | None = None
) -> list[str]:
    """Why `claim`, found at `key`, cannot be evaluated on a table with `columns`.

    `metrics` are the datasets' own, for lines that name none.
    Seeds that the experiment does not run are no finding: `--config seeds=N` changes them.
    """
    unknown = [*_unknown_values(key, claim, columns), *_unknown_methods(key, claim, columns)]
    if unknown:
        return unknown
    pairs = claim_pairs(claim, columns)
    if claim.along != "metric" and len({pair.left.metric for pair in pairs}) > 1:
        return [f"'{key}' is about several metrics: name one, as in 'where: {{metric: f1}}'."]
    if not pairs:
        return [f"'{key}.table' has no line with both sides of the claim."]
    if claim.over == "trend" and not trends(claim, pairs):
        return [f"'{key}.along': no line has several values of '{claim.along}', or all of 'order'."]
    if isinstance(claim.count, int) and claim.count > len(pairs):
        return [f"'{key}.count' is {claim.count}, but the claim has {len(pairs)} lines."]
    return list(_never_decided(key, claim, pairs, metrics or {}))


def _never_decided(
    key: str, claim: Claim, pairs: Sequence[Pair], metrics: Mapping[str, str]
) -> Iterator[str]:
    """Why no scores, of however many seeds, could decide the claim."""
    places = [place for pair in pairs for place in (pair.left, pair.right)]
    names = [claim.metric or place.metric or metrics.get(place.tested, "") for place in places]
    used = list(dict.fromkeys(filter(None, names)))
    if not comparable(used):
        yield (
            f"'{key}' compares or averages {joined(used)}, which differ in unit, in which way is "
            "better, or in whether examples have values of their own. Name one."
        )
    seedless = [side.method for side in (claim.left, claim.right) if side.method in SEEDLESS]
    curves = [name for name in used if name in get_args(Curve)]
    if seedless and curves:
        yield f"'{key}' asks for {curves[0]} of '{seedless[0]}', which has no training curve."
    whole = [name for name in used if not metric_named(name).per_example]
    if len(seedless) == 2 and whole and not curves:
        yield (
            f"'{key}' can never be decided: '{seedless[0]}' and '{seedless[1]}' have no seeds, and "
            f"no example has {whole[0]} of its own."
        )


def _unknown_values(key: str, claim: Claim, columns: Iterable[Place]) -> Iterator[str]:
    places = list(columns)
    for part, block in (("where", claim.where), ("left", claim.left), ("right", claim.right)):
        for axis in AXES:
            given, known = getattr(block, axis), {getattr(place, axis) for place in places}
            for value in given if isinstance(given, list) else [given]:
                if value is not None and value not in known:
                    hint = nearest(str(value), map(str, known))
                    yield f"'{key}.{part}.{axis}' names '{value}', not in the table. {hint}"


def _unknown_methods(key: str, claim: Claim, columns: Columns) -> Iterator[str]:
    known = {method for methods in columns.values() for method in methods}
    for part, side in (("left", claim.left), ("right", claim.right)):
        if side.method not in known:
            hint = nearest(side.method, known)
            yield f"'{key}.{part}.method' names '{side.method}', not in the table. {hint}"
