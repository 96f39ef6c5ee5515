"""BERTScore of published predictions, for those who have the encoder. Only this loads torch."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean

from kd.audit.published.entries import Score
from kd.audit.published.protocol import Protocol, Row, Scored
from kd.errors import DataError, ModelError
from kd.evaluation.bertscore import Unavailable, bert_f1
from kd.experiment.schema import BertScore


def with_bertscore(protocol: Protocol, encoder: Path) -> Score:
    """`protocol.score`, which also recomputes the authors' BERTScore F1.

    Raises:
        DataError: the protocol has no BERTScore.
        ModelError: the returned function raises it where `encoder` cannot be used.
    """
    wanted = protocol.bertscore
    if wanted is None:
        raise DataError(f"Protocol '{protocol.name}' has no BERTScore. Leave out --bertscore.")
    settings = BertScore(model=str(encoder), layer=wanted.layer, rescale=wanted.rescale)

    def score(rows: Sequence[Row]) -> Scored:
        scored = protocol.score(rows)
        references = [row.references or ("",) for row in rows]
        found = bert_f1([row.prediction for row in rows], references, settings)
        if isinstance(found, Unavailable):
            raise ModelError(f"--bertscore: {found.reason}. Name a folder with the encoder.")
        return replace(scored, authors={**scored.authors, wanted.metric: 100 * fmean(found.f1)})

    return score
