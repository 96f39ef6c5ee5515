"""Per-example scores of a table's cells, lined up so that cells can be compared.

How scores are read is the caller's affair: a `SampleOf` gives the scores of one cell. Nothing
here touches a file.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from kd.errors import ArtifactError, KdError
from kd.experiment.base import Score
from kd.experiment.claims import SEEDLESS, Columns, Place, place_columns, place_of
from kd.experiment.metrics import metric_named
from kd.tables.seed_noise import Matrix

if TYPE_CHECKING:
    from kd.experiment.stages import TableSpec


class Unavailable(KdError):
    """A cell has no scores of the metric asked for; the message says why."""


@dataclass(frozen=True)
class Sample:
    """Scores of one cell in percent.

    Attributes:
        ids: the test examples, [n]; one empty name for a value of all examples together.
        values: [S, n], or [1, n] for a model that no seed trained.
        seeds: the S seeds; empty for a model that no seed trained.
    """

    ids: tuple[str, ...]
    values: Matrix
    seeds: tuple[int, ...] = ()

    def at(self, seeds: Sequence[int]) -> "Sample":
        """The rows of `seeds`, in their order; all rows if `seeds` is empty.

        Raises:
            Unavailable: a seed was not run.
        """
        if not seeds or not self.seeds:
            return self
        missing = sorted(set(seeds) - set(self.seeds))
        if missing:
            raise Unavailable(f"seed {missing[0]} was not run")
        rows = [self.seeds.index(seed) for seed in seeds]
        return Sample(self.ids, self.values[rows], tuple(seeds))

    def ordered_as(self, ids: tuple[str, ...]) -> Matrix:
        """The values [S, n] in the order of `ids`.

        Raises:
            ArtifactError: `ids` are not the examples of this sample.
        """
        if ids == self.ids:
            return self.values
        if set(ids) != set(self.ids):
            raise ArtifactError(
                f"Cells of one dataset were scored on different examples ({len(ids)} and "
                f"{len(self.ids)}). Predict and score them again."
            )
        place = {name: column for column, name in enumerate(self.ids)}
        return self.values[:, [place[name] for name in ids]]


SampleOf = Callable[[Place, str, Score | None], Sample]
"""Scores of a place's column (a method, 'teacher_score', 'native') by a metric; None means the
dataset's own. Raises Unavailable where there are none."""


def stack(by_seed: Mapping[int, tuple[Sequence[str], Sequence[float]]]) -> Sample:
    """One cell's sample from (ids, scores) of each seed.

    Raises:
        ArtifactError: seeds were scored on different examples.
    """
    single = [
        Sample(tuple(ids), np.array([scores], dtype=float)) for ids, scores in by_seed.values()
    ]
    ids = single[0].ids
    rows = np.concatenate([sample.ordered_as(ids) for sample in single])
    return Sample(ids, rows, tuple(by_seed))


def plus(total: Sample | None, cell: Sample, weight: float) -> Sample:
    """`total` plus a weighted cell, by the examples of `total`."""
    if total is None:
        return replace(cell, values=weight * cell.values)
    return replace(total, values=total.values + weight * cell.ordered_as(total.ids))


def difference(left: Sample, right: Sample) -> Matrix:
    """Left minus right in points, [S, n]; seeds are paired in order."""
    return left.values - right.ordered_as(left.ids)


def metric_at(spec: "TableSpec", place: Place, metric: str | None = None) -> str:
    """The metric of a place's cells: `metric` if given, the line's own, or the dataset's."""
    return metric or place.metric or spec.metrics[place.tested]


def oriented(spec: "TableSpec", sample_of: SampleOf) -> SampleOf:
    """Samples in which more is better: scores of which less is better get the other sign."""

    def of(place: Place, column: str, metric: Score | None) -> Sample:
        found = sample_of(place, column, metric)
        sign = metric_named(metric_at(spec, place, metric)).sign
        return found if sign > 0 else replace(found, values=sign * found.values)

    return of


def table_columns(spec: "TableSpec") -> Columns:
    """The columns of scores that each place of a table has, in the table's order."""
    rows = ((place_of(row), row.get("method")) for row in spec.rows)
    return place_columns(rows, spec.baseline, spec.methods)


def gains(spec: "TableSpec", sample_of: SampleOf) -> dict[tuple[Place, str], Matrix]:
    """Each method's gain over the baseline at each place, where both have scores.

    It is positive where the method is better (`kd.experiment.metrics`).
    """
    sample_of = oriented(spec, sample_of)
    found = {}
    for place, columns in table_columns(spec).items():
        for column in columns:
            if column not in (*SEEDLESS, spec.baseline):
                try:
                    pair = [sample_of(place, name, None) for name in (column, spec.baseline)]
                except Unavailable:
                    continue
                found[place, column] = difference(*pair)
    return found
