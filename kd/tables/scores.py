"""Scores behind a table's cells, read from `scores.json`: a mean, and a value an example.

The files are read as plain JSON: what a table needs of scoring is its output alone.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Any, get_args

from kd.errors import ArtifactError
from kd.experiment.base import WHOLE, Curve, Score
from kd.experiment.claims import SEEDLESS, Place
from kd.experiment.layout import CURVE, Run, native_path, teacher_path, value_path
from kd.experiment.metrics import metric_named
from kd.experiment.stages import TableSpec
from kd.tables.curves import curve_value
from kd.tables.samples import Sample, Unavailable, metric_at, stack


@dataclass(frozen=True)
class Read:
    """One model's scores by one metric, in percent; `unavailable` says why there are none.

    Of some metrics no example has a value of its own: `ids` and `values` are empty.
    """

    mean: float | None
    ids: tuple[str, ...] = ()
    values: tuple[float, ...] = ()
    unavailable: str | None = None


class ScoreReader:
    """Reads the scores of one table's cells, each file once."""

    def __init__(self, spec: TableSpec, results: Path) -> None:
        """Read `spec`'s cells below `results`, the experiment's folder."""
        self._spec = spec
        self._results = results
        self._files: dict[str, Mapping[str, Any]] = {}
        self._samples: dict[tuple[Place, str, str], Sample] = {}

    def paths(self, place: Place, column: str) -> dict[int | None, str]:
        """Files of a column (a method, 'teacher_score', 'native') by seed: scores, or curves.

        The seed is None for models that no seed trained; of those there are no curves.
        """
        subjects: dict[int | None, str]
        teacher, native = SEEDLESS
        if column == teacher:
            subjects = {None: teacher_path(place.teacher, place.tested)}
        elif column == native:
            subjects = {None: native_path(place.tested, place.student)}
        else:
            axes = (place.dataset, place.teacher, place.student, column, place.fraction)
            subjects = {seed: Run(*axes, seed).path for seed in self._spec.seeds}
        paths = {
            seed: value_path(subject, place.tested, place.metric)
            for seed, subject in subjects.items()
        }
        return {seed: path for seed, path in paths.items() if path}

    def read(self, path: str, metric: str) -> Read:
        """Scores of the file `path` by `metric`.

        Raises:
            ArtifactError: the file is missing or malformed, or lacks the metric.
        """
        if path.endswith(f"/{CURVE}"):
            return Read(curve_value(self._results / path, metric))
        try:
            content = self._content(path)
            found = content["metrics"][metric]
            if "unavailable" in found:
                return Read(None, unavailable=str(found["unavailable"]))
            mean = float(found["mean"])
            if metric in WHOLE:
                return Read(mean)
            values = tuple(float(value) for value in content["per_example"][metric])
            read = Read(mean, tuple(content["ids"]), values)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ArtifactError(
                f"{self._results / path}: no score '{metric}' to read ({error}). Re-run `kd score`."
            ) from None
        if not all(map(isfinite, (mean, *values))):
            raise ArtifactError(
                f"{self._results / path}: scores by '{metric}' are no numbers. Re-run `kd score`."
            )
        if len(read.ids) != len(read.values) or not read.ids:
            raise ArtifactError(
                f"{self._results / path}: {len(read.ids)} examples, but {len(read.values)} scores "
                f"by '{metric}'. Re-run `kd score`."
            )
        return read

    def _content(self, path: str) -> Mapping[str, Any]:
        if path not in self._files:
            text = (self._results / path).read_text(encoding="utf-8")
            self._files[path] = json.loads(text)
        return self._files[path]

    def sample(self, place: Place, column: str, metric: Score | None) -> Sample:
        """Scores of a cell (a `SampleOf`), by example where examples have some.

        `metric` None is the line's own.

        Raises:
            Unavailable: a seed has no scores by the metric.
            ArtifactError: a file is missing, or seeds were scored on different examples.
        """
        wanted = metric_at(self._spec, place, metric)
        key = (place, column, wanted)
        if key not in self._samples:
            self._samples[key] = self._sample(place, column, wanted)
        return self._samples[key]

    def _sample(self, place: Place, column: str, wanted: str) -> Sample:
        found = {}
        curve = wanted in get_args(Curve)
        paths = self.paths(place, column)
        if not paths:
            raise Unavailable("only a distilled student has a training curve")
        for seed, path in paths.items():
            if not curve and wanted not in self._metrics(path):
                raise Unavailable(f"{path} has no '{wanted}'")
            read = self.read(path, wanted)
            if read.mean is None:
                raise Unavailable(read.unavailable or f"{path} has no '{wanted}'")
            whole = not metric_named(wanted).per_example
            found[seed or 0] = (("",), (read.mean,)) if whole else (read.ids, read.values)
        sample = stack(found)
        return Sample(sample.ids, sample.values) if column in SEEDLESS else sample

    def _metrics(self, path: str) -> Mapping[str, Any]:
        try:
            metrics: Mapping[str, Any] = self._content(path)["metrics"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ArtifactError(
                f"{self._results / path}: not a scores file ({error}). Re-run `kd score`."
            ) from None
        return metrics
