"""Per-example scores of a table's cells, read for the statistics of `kd.tables`."""

from kd.audit.scope import Scope, TableView
from kd.tables.samples import SampleOf
from kd.tables.scores import ScoreReader


def sample_of(scope: Scope, view: TableView) -> SampleOf:
    """A reader of the scores behind one table's cells."""
    assert view.spec is not None
    return ScoreReader(view.spec, scope.results).sample
