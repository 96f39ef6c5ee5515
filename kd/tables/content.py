"""All that a table says, computed once: csv, json, md and tex only write it down.

Estimates are rounded to `DECIMALS`, so that files do not depend on a processor's last bits.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from math import isfinite
from pathlib import Path
from statistics import fmean
from typing import Any, TypeVar

from kd.experiment.claims import Claim, Columns, NamedClaim, Place, Side
from kd.experiment.metrics import comparable
from kd.experiment.stages import TableSpec
from kd.tables.cells import Line, build_lines, gain_columns, score_columns
from kd.tables.claims import Verdict, evaluate, evaluate_claims
from kd.tables.published import Key, Published, published_key
from kd.tables.samples import SampleOf, Unavailable, gains, oriented, table_columns
from kd.tables.scores import ScoreReader
from kd.tables.statistics import (
    DECIMALS,
    RESAMPLES,
    Comparison,
    Over,
    compare,
    prediction_of_runs,
)

Estimated = TypeVar("Estimated", Comparison, Verdict)


@dataclass(frozen=True)
class Beside:
    """A published value beside ours.

    Attributes:
        published: the value, its source and its note.
        difference: ours minus the published value, in points.
        prediction: where one more run of ours would fall; None for fewer than three runs.
        inside: whether the published value lies there.
    """

    published: Published
    difference: float | None
    prediction: tuple[float, float] | None
    inside: bool | None


@dataclass(frozen=True)
class MeanGain:
    """A method's mean gain over the lines that have one, with its interval."""

    column: str
    method: str
    value: float
    better: int
    lines: int
    verdict: Verdict

    @property
    def low(self) -> float | None:
        """Lower bound of the 95 % interval."""
        return self.verdict.low

    @property
    def high(self) -> float | None:
        """Upper bound of the 95 % interval."""
        return self.verdict.high

    @property
    def over(self) -> Over | None:
        """What the interval covers."""
        return self.verdict.over


@dataclass(frozen=True)
class Content:
    """A table's lines with their statistics, its claims with their verdicts."""

    spec: TableSpec
    lines: list[Line]
    comparisons: Mapping[tuple[Place, str], Comparison]
    means: list[MeanGain]
    verdicts: list[tuple[NamedClaim, Verdict]]
    published: Mapping[Key, Published]
    resamples: int = RESAMPLES

    def comparison(self, line: Line, column: str) -> Comparison | None:
        """The interval and p-values of a column of gains; None where a score is missing."""
        scores = gain_columns(self.spec)[column]
        return self.comparisons.get((line.place, line.method(scores)))

    def beside(self, line: Line, column: str) -> Beside | None:
        """The published value of a column of scores, by the same metric; None if there is none."""
        found = self.published.get(published_key(line, column))
        if found is None or line.place.tested != line.place.dataset:
            return None
        cell = line.cells[column]
        runs = prediction_of_runs(list((cell.per_seed or {}).values()))
        prediction = None if runs is None else (_tidy(runs[0]), _tidy(runs[1]))
        return Beside(
            found,
            None if cell.value is None else cell.value - found.value,
            prediction,
            None if prediction is None else prediction[0] <= found.value <= prediction[1],
        )

    @property
    def published_columns(self) -> list[str]:
        """Columns of scores of which some line has a published value."""
        return [
            column
            for column in score_columns(self.spec)
            if any(self.beside(line, column) for line in self.lines)
        ]


def build_content(
    spec: TableSpec,
    results: Path,
    published: Mapping[Key, Published] | None = None,
    resamples: int = RESAMPLES,
) -> Content:
    """Read a table's scores below `results` and compare them.

    Raises:
        ArtifactError: a score file is missing or malformed, or cells of one dataset were
            scored on different examples.
    """
    reader = ScoreReader(spec, results)
    lines = build_lines(spec, results, reader)
    found = compare(gains(spec, reader.sample), spec.name, resamples)
    comparisons = {key: _rounded(one) for key, one in found.items()}
    named = {claim.name: claim for claim in spec.claims}
    verdicts = evaluate_claims(named, spec, reader.sample, resamples)
    return Content(
        spec,
        lines,
        comparisons,
        _means(spec, lines, reader.sample, resamples),
        [(named[name], _rounded(verdict)) for name, verdict in verdicts.items()],
        published or {},
        resamples,
    )


def _means(
    spec: TableSpec, lines: Sequence[Line], sample_of: SampleOf, resamples: int
) -> list[MeanGain]:
    """Each method's mean gain; in a table with one line a method, over that method's lines.

    A table of several metrics to a line has none, nor one of metrics without a common unit.
    """
    several = len({line.place.metric for line in lines}) > 1
    if several or not comparable(line.metric for line in lines):
        return []
    found = []
    columns = {
        place: [name for name in names if _available(sample_of, place, name)]
        for place, names in table_columns(spec).items()
    }
    for column, scores in gain_columns(spec).items():
        for method in dict.fromkeys(line.method(scores) for line in lines):
            own = [line.cells[column] for line in lines if line.method(scores) == method]
            values = [cell.value for cell in own if cell.value is not None]
            if values:
                better = sum(value > 0 for value in values)
                verdict = _mean_verdict(spec, method, columns, sample_of, resamples)
                value = fmean(values) if verdict.value is None else verdict.value
                mean = MeanGain(column, method, value, better, len(values), verdict)
                found.append(mean)
    return found


def _mean_verdict(
    spec: TableSpec, method: str, columns: Columns, sample_of: SampleOf, resamples: int
) -> Verdict:
    """The mean gain as a claim tests it, over `columns`, where there are scores."""
    claim = Claim(
        text="mean gain",
        table=spec.name,
        left=Side(method=method),
        right=Side(method=spec.baseline),
    )
    found = evaluate(f"mean {method}", claim, columns, oriented(spec, sample_of), resamples)
    return _rounded(found)


def _available(sample_of: SampleOf, place: Place, column: str) -> bool:
    try:
        sample_of(place, column, None)
    except Unavailable:
        return False
    return True


def _rounded(estimated: Estimated) -> Estimated:
    values: dict[str, Any] = {
        field.name: _tidy(value)
        for field in fields(estimated)
        if isinstance(value := getattr(estimated, field.name), float)
    }
    return replace(estimated, **values)


def _tidy(value: float) -> float:
    return round(value, DECIMALS) + 0.0 if isfinite(value) else value  # no -0.0
