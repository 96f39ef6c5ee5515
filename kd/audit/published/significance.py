"""Is a method's gain, on the same test rows, more than the choice of rows would give?

Intervals and p-values are those of our own tables (`kd.tables.statistics`): a paired bootstrap
over rows, with Holm's correction over all comparisons of a metric. Authors publish one run of
each method, so nothing is said of other seeds.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np
from pydantic import JsonValue

from kd.audit.findings import Finding, Status, finding
from kd.audit.published.comparison_checks import Comparison
from kd.audit.published.entries import Predictions
from kd.audit.published.protocol import Protocol
from kd.tables import statistics

RESAMPLES = 1999  # p-values are multiples of 1/2000; ten thousand rows take a fifth of a second
_LEVEL = 0.05


@dataclass(frozen=True)
class Difference:
    """Mean of second minus first, its standard error, 95 % interval and two-sided p-value."""

    mean: float
    standard_error: float
    low: float
    high: float
    p: float


def paired_difference(
    first: Sequence[float], second: Sequence[float], name: Sequence[str] = ()
) -> Difference:
    """Compare two methods row by row; both [rows], in the same order; rows from
    `kd.tables.statistics.FEWEST_EXAMPLES` on.

    Args:
        first: values of the baseline.
        second: values of the other method.
        name: words that seed the resampling.

    Raises:
        ValueError: there are fewer rows, of which nothing can be said.
    """
    differences = np.subtract(second, first)[np.newaxis]
    result = statistics.estimate([differences], name, resamples=RESAMPLES)
    interval, p = result.interval(), result.p_value()
    if interval is None or p is None:
        raise ValueError(f"a paired difference needs at least {statistics.FEWEST_EXAMPLES} rows")
    error = float(differences.std(ddof=1)) / differences.size**0.5
    return Difference(result.value, error, *interval, p)


def check_significance(compared: Sequence[Comparison], protocol: Protocol) -> Iterator[Finding]:
    """Every method against its baseline, on each of the metrics that the protocol names."""
    tested: dict[str, tuple[Predictions, Predictions]] = {}
    for comparison in compared:
        for first, second in comparison.against(protocol.baseline):
            labels = comparison.label(second), comparison.label(first)
            subject = f"{comparison.subject}, {' against '.join(labels)}"
            if first.predictions is None or second.predictions is None:
                told = "Cannot be tested: predictions of both methods are needed."
                yield finding("significance", subject, "not applicable", told)
            elif (
                first.predictions.keys != second.predictions.keys
                or (first.tested or 0) < statistics.FEWEST_EXAMPLES
            ):
                told = (
                    "Cannot be tested: the predictions are not of the same rows, "
                    f"{statistics.FEWEST_EXAMPLES} of them or more."
                )
                yield finding("significance", subject, "not applicable", told)
            else:
                tested[subject] = first.predictions, second.predictions
    each = [_differences(tested, metric) for metric in protocol.compared]
    for row in zip(tested, *each, strict=True):
        yield _significance(row[0], dict(zip(protocol.compared, row[1:], strict=True)))


def _differences(
    tested: Mapping[str, tuple[Predictions, Predictions]], metric: str
) -> list[tuple[Difference, float]]:
    """For each pair the difference of one metric, and its p after Holm's correction."""
    found = [
        paired_difference(
            first.scored.per_row[metric], second.scored.per_row[metric], (metric, subject)
        )
        for subject, (first, second) in tested.items()
    ]
    adjusted = statistics.holm([difference.p for difference in found])
    return [(difference, p or 0.0) for difference, p in zip(found, adjusted, strict=True)]


def _significance(subject: str, results: Mapping[str, tuple[Difference, float]]) -> Finding:
    told = "; ".join(
        f"{metric} {found.mean:+.2f} [{found.low:+.2f}, {found.high:+.2f}], p = {found.p:.3f}, "
        f"Holm's p = {p_holm:.3f}: {_verdict(found.mean, p_holm)}"
        for metric, (found, p_holm) in results.items()
    )
    gains = all(_verdict(found.mean, p) == "a gain" for found, p in results.values())
    status: Status = "pass" if gains else "warn"
    details: dict[str, JsonValue] = {
        metric: asdict(found) | {"p_holm": p} for metric, (found, p) in results.items()
    }
    return finding(
        "significance", subject, status, f"{told}.", details=details | {"resamples": RESAMPLES}
    )


def _verdict(mean: float, p_holm: float) -> str:
    if p_holm > _LEVEL:
        return "within chance"
    return "a gain" if mean > 0 else "a loss"
