"""Per-example scores of a table's cells, read for the statistics of `kd.tables`."""

from collections.abc import Sequence

from kd.audit.scope import Scope, TableView
from kd.errors import ArtifactError, KdError
from kd.evaluation.scoring import read_scores
from kd.experiment.base import Score
from kd.experiment.claims import SEEDLESS, Place
from kd.experiment.layout import Run, native_path, scores_path, teacher_path
from kd.tables.samples import Sample, SampleOf, Unavailable, stack
from kd.tables.statistics import prediction_interval

FEWEST = 3  # runs from which on a prediction interval is worth its name


def sample_of(scope: Scope, view: TableView) -> SampleOf:
    """A reader of the scores behind one table's cells."""
    spec = view.spec
    assert spec is not None

    def read(place: Place, column: str, metric: Score | None) -> Sample:
        wanted = metric or spec.metrics[place.dataset]
        if column in SEEDLESS:
            teacher = teacher_path(place.teacher, place.dataset)
            native = native_path(place.dataset, place.student)
            subjects = {0: teacher if column == SEEDLESS[0] else native}
        else:
            axes = (place.dataset, place.teacher, place.student, column, place.fraction)
            subjects = {seed: Run(*axes, seed).path for seed in spec.seeds}
        found = {
            seed: _scores(scope, subject, place.dataset, wanted)
            for seed, subject in subjects.items()
        }
        sample = stack(found)
        return Sample(sample.ids, sample.values) if column in SEEDLESS else sample

    return read


def _scores(
    scope: Scope, subject: str, dataset: str, metric: str
) -> tuple[Sequence[str], Sequence[float]]:
    path = scores_path(subject, dataset)
    try:
        scores = read_scores(scope.results / path)
        return scores.ids, scores.per_example[metric]
    except KeyError:
        raise Unavailable(f"{path} has no '{metric}'") from None
    except KdError as error:
        raise ArtifactError(str(error)) from None


def interval_of_runs(values: Sequence[float]) -> tuple[float, float] | None:
    """The 95 % prediction interval of runs; None for fewer than three."""
    return prediction_interval(values) if len(values) >= FEWEST else None
