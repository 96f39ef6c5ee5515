"""Claims put to the test: each holds, does not hold, or is undecided at this power.

A claim holds where the whole 95 % interval lies on its side of the threshold, does not hold
where the interval lies on the other side, and is undecided otherwise. The threshold is 0; with
a margin m, 'greater' means by more than m, 'at_least' means not more than m below
(non-inferiority), 'equivalent' means within ±m (Schuirmann's two one-sided tests, at 2.5 %).

A side is greater where it is better: of metrics like the Brier score, of which less is better,
differences are taken with the other sign (`kd.experiment.metrics`).

Means and trends are weighted sums of cells. The cells of one dataset are summed before
anything is resampled, because they share test examples (`kd.tables.statistics.estimate`).

A count ("in at least k of n lines") is tested by the partial conjunction of the lines'
one-sided p-values (Benjamini and Heller, "Screening for partial conjunction hypotheses",
Biometrics 64(4), 2008): at least u lines are positive if (n - u + 1) times the u-th smallest p
is at most 2.5 %, whatever the lines' dependence. Its interval holds the true number of lines.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import numpy as np

from kd.experiment.claims import Claim, Columns, Pair, claim_pairs, trends
from kd.tables.samples import (
    Sample,
    SampleOf,
    Unavailable,
    metric_at,
    oriented,
    plus,
    table_columns,
)
from kd.tables.seed_noise import Matrix, SeedNoise, fit_seed_noise
from kd.tables.statistics import (
    FEWEST_EXAMPLES,
    LEVEL,
    RESAMPLES,
    Estimate,
    Over,
    estimate,
    needed_resamples,
)

if TYPE_CHECKING:
    from kd.experiment.stages import TableSpec

Outcome = Literal["holds", "does not hold", "undecided"]
Weighted = list[tuple[Pair, float]]
_NO_INTERVAL = (
    f"there is no interval from one seed without scores of {FEWEST_EXAMPLES} examples or more"
)


@dataclass(frozen=True)
class Verdict:
    """What the scores say of one claim.

    Attributes:
        outcome: the verdict.
        value: how much better the left side is, in points or nats; the change of that along
            a trend; or a number of lines. None where scores are missing.
        low: lower bound of the 95 % interval, in the unit of `value`.
        high: upper bound.
        margin: how far `value` lies on the claimed side of the threshold; negative on the
            other side.
        decidable: the smallest effect in points, to either side of the threshold, that would
            have been decided (of a count: that each line would have needed).
        lines: lines of the table that the claim is about.
        over: what the interval covers.
        reason: why there is no value.
        metrics: the metrics that are compared.
    """

    outcome: Outcome
    value: float | None = None
    low: float | None = None
    high: float | None = None
    margin: float | None = None
    decidable: float | None = None
    lines: int = 0
    over: Over | None = None
    reason: str | None = None
    metrics: tuple[str, ...] = ()


def evaluate_claims(
    claims: Mapping[str, Claim],
    spec: "TableSpec",
    sample_of: SampleOf,
    resamples: int = RESAMPLES,
) -> dict[str, Verdict]:
    """Verdicts on those `claims` that are about the table `spec`, by name."""
    columns = table_columns(spec)
    better = oriented(spec, sample_of)
    return {
        name: replace(
            evaluate(name, claim, columns, better, resamples),
            metrics=_metrics(claim, columns, spec),
        )
        for name, claim in claims.items()
        if claim.table == spec.name
    }


def _metrics(claim: Claim, columns: Columns, spec: "TableSpec") -> tuple[str, ...]:
    """The metrics that a claim compares by, each once."""
    sides = ((pair.left, pair.right) for pair in claim_pairs(claim, columns))
    return tuple(
        dict.fromkeys(metric_at(spec, place, claim.metric) for both in sides for place in both)
    )


def evaluate(
    name: str,
    claim: Claim,
    columns: Columns,
    sample_of: SampleOf,
    resamples: int = RESAMPLES,
) -> Verdict:
    """The verdict on one claim, about a table with `columns` by place."""
    pairs = claim_pairs(claim, columns)
    parts = _parts(claim, pairs)
    if not parts:
        return Verdict("undecided", reason="the table has no such lines")
    try:
        blocks = [_blocks(claim, part, sample_of) for part in parts]
    except Unavailable as problem:
        return Verdict("undecided", lines=len(pairs), reason=str(problem))
    noise = _seed_noise(claim, columns, sample_of)
    if claim.over == "lines":  # the partial conjunction multiplies p-values, as Holm does
        resamples = needed_resamples(2 * len(pairs), resamples)
    found = [
        estimate(block, ("claim", name, str(number)), noise, resamples)
        for number, block in enumerate(blocks)
    ]
    if claim.over == "lines":
        return _counted(claim, found)
    return _judged(claim, found[0], len(pairs))


def _parts(claim: Claim, pairs: list[Pair]) -> list[Weighted]:
    """What is estimated: each line of a count, or one weighted sum of all lines."""
    if claim.over == "lines":
        return [[(pair, 1.0)] for pair in pairs]
    if claim.over == "mean":
        return [[(pair, 1 / len(pairs)) for pair in pairs]] if pairs else []
    return _slope(claim, pairs)


def _slope(claim: Claim, pairs: list[Pair]) -> list[Weighted]:
    """Weights that fit a straight line to each trend: its change from first to last value."""
    found = trends(claim, pairs)
    weighted: Weighted = []
    for trend in found:
        steps = np.arange(len(trend)) - (len(trend) - 1) / 2
        weights = steps * (len(trend) - 1) / (steps**2).sum() / len(found)
        weighted += list(zip(trend, weights.tolist(), strict=True))
    return [weighted] if weighted else []


def _blocks(claim: Claim, weighted: Weighted, sample_of: SampleOf) -> list[Matrix]:
    """The weighted sum of left minus right, one [S, n] for each dataset of test rows.

    Raises:
        Unavailable: a cell has no scores.
    """
    sums: dict[str, Sample] = {}
    for pair, weight in weighted:
        for place, side, sign in ((pair.left, claim.left, 1), (pair.right, claim.right, -1)):
            cell = sample_of(place, side.method, claim.metric).at(side.seeds)
            sums[place.tested] = plus(sums.get(place.tested), cell, sign * weight)
    blocks = [total.values for total in sums.values()]
    return [_joined(blocks)] if any(pair.left.test for pair, _ in weighted) else blocks


def _joined(blocks: list[Matrix]) -> Matrix:
    """One block [S, sum of n] with the mean that the blocks have in sum.

    Where a student is tested on several datasets, these share what its seed did to it. Which
    datasets there are is no matter of chance: each block varies around its own mean, so that
    resampling the whole gives the variance that resampling within each dataset would. The mean
    of each seed is the sum of the blocks' means at that seed.
    """
    size = sum(block.shape[1] for block in blocks)
    if size == len(blocks):
        return np.asarray(sum(blocks))  # values of whole datasets: no example varies
    total = sum(block.mean() for block in blocks)
    parts = [(block - block.mean()) * (size / block.shape[1]) + total for block in blocks]
    return np.concatenate(parts, axis=1)


def _seed_noise(claim: Claim, columns: Columns, sample_of: SampleOf) -> SeedNoise:
    """What the same comparison, made on every dataset of the table, says of seeds.

    Not the table's single lines: students of one dataset meet its rows in the same order at a
    seed, so what seeds do to them need not average out. A sum over them shows whether it does.
    """
    everywhere = claim.where.model_copy(update={"dataset": []})
    pairs = claim_pairs(claim.model_copy(update={"where": everywhere}), columns)
    blocks: list[Matrix] = []
    for dataset in dict.fromkeys(pair.left.dataset for pair in pairs):
        here = [pair for pair in pairs if pair.left.dataset == dataset]
        try:
            blocks += (b for part in _parts(claim, here) for b in _blocks(claim, part, sample_of))
        except Unavailable:
            continue
    return fit_seed_noise(blocks)


def _threshold(claim: Claim) -> float:
    """The value, in points, that separates the claim from its contrary."""
    return -claim.margin if claim.relation in ("at_least", "falls") else claim.margin


def _judged(claim: Claim, found: Estimate, lines: int) -> Verdict:
    low, high = found.interval() or (-np.inf, np.inf)
    threshold = _threshold(claim)
    # Exactly one of a claim and its contrary is true of each value, the threshold included:
    # a claim fails where the whole interval is in its contrary.
    if claim.relation == "equivalent":
        holds = -claim.margin <= low and high <= claim.margin
        fails = low > claim.margin or high < -claim.margin
        margin = claim.margin - abs(found.value)
    elif claim.relation == "falls":
        holds, fails, margin = high < threshold, low >= threshold, threshold - found.value
    else:
        inclusive = claim.relation == "at_least"
        holds = low > threshold or (inclusive and low == threshold)
        fails = high < threshold or (not inclusive and high == threshold)
        margin = found.value - threshold
    outcome: Outcome = "holds" if holds else "does not hold" if fails else "undecided"
    known = found.errors is not None
    return Verdict(
        outcome,
        found.value,
        low if known else None,
        high if known else None,
        margin,
        found.half_width(),
        lines,
        found.over,
        None if known else _NO_INTERVAL,
    )


def _counted(claim: Claim, found: list[Estimate]) -> Verdict:
    """How many lines' left side is better, and whether that is enough."""
    wanted = len(found) if claim.count == "all" else int(claim.count or 0)
    threshold = _threshold(claim)
    equal_counts = claim.relation == "at_least"
    value = sum(
        line.value > threshold or (equal_counts and line.value == threshold) for line in found
    )
    p_values = [_one_sided(line, threshold, equal_counts=equal_counts) for line in found]
    low, high = at_least(p_values), len(found) - at_least([1 - p for p in p_values])
    outcome: Outcome = "undecided"
    if low >= wanted:
        outcome = "holds"
    elif high < wanted:
        outcome = "does not hold"
    if all(line.errors is None for line in found):
        margin = value - wanted
        return Verdict("undecided", value, margin=margin, lines=len(found), reason=_NO_INTERVAL)
    strict = 1 - (1 - LEVEL) / max(1, len(found) - wanted + 1)
    widths = [line.half_width(strict) for line in found]
    known = [width for width in widths if width is not None]
    return Verdict(
        outcome,
        value,
        low,
        high,
        value - wanted,
        max(known, default=None),
        len(found),
        found[0].over,
    )


def _one_sided(line: Estimate, threshold: float, *, equal_counts: bool) -> float:
    """P of the hypothesis that the line's effect is at most `threshold`."""
    p = line.p_value(threshold)
    if p is None:
        return 0.5  # neither bound of the count can use the line
    if line.value == threshold and line.half_width() == 0:
        return 0.0 if equal_counts else 1.0  # the same answers: nothing is left to chance
    return p / 2 if line.value > threshold else 1 - p / 2


def at_least(p_values: Sequence[float], level: float = LEVEL) -> int:
    """Lower confidence bound of the number of false null hypotheses, at (1 + level)/2."""
    count = len(p_values)
    for rank, p in enumerate(sorted(p_values)):
        if (count - rank) * p > (1 - level) / 2:
            return rank
    return count
