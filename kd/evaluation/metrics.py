"""The scores as `evaluate.Metric` classes, for use with the `evaluate` library.

`compute` returns per-example lists, not means. The scores themselves are defined in
`overlap`, `rouge` and `bertscore`; these classes only give them `evaluate`'s interface
(`evaluate.load` would need the network). The stage `score` calls the definitions directly,
because importing `evaluate` takes seven seconds and half a gigabyte.
"""

from abc import abstractmethod
from collections.abc import Sequence

import datasets
import evaluate

from kd.errors import ModelError
from kd.evaluation.bertscore import Unavailable, bert_f1
from kd.evaluation.overlap import best_overlap, exact_match
from kd.evaluation.rouge import rouge
from kd.experiment.schema import BertScore

Values = dict[str, list[float]]


class PerExample(evaluate.Metric):  # type: ignore[misc]
    """Base: predictions are strings, references lists of strings; nothing is kept on disk."""

    def __init__(self) -> None:
        super().__init__(keep_in_memory=True)

    def _info(self) -> evaluate.MetricInfo:
        features = {
            "predictions": datasets.Value("string"),
            "references": datasets.Sequence(datasets.Value("string")),
        }
        return evaluate.MetricInfo(
            description=type(self).__doc__,
            citation="",
            inputs_description="predictions: texts; references: a list of texts for each.",
            features=datasets.Features(features),
        )

    @abstractmethod
    def _compute(
        self, predictions: Sequence[str], references: Sequence[Sequence[str]]
    ) -> Values: ...


class TokenOverlap(PerExample):
    """Token F1, precision and recall of the reference with the best F1."""

    def _compute(self, predictions: Sequence[str], references: Sequence[Sequence[str]]) -> Values:
        scores = [best_overlap(*pair) for pair in zip(predictions, references, strict=True)]
        return {
            "f1": [score.f1 for score in scores],
            "precision": [score.precision for score in scores],
            "recall": [score.recall for score in scores],
        }


class ExactMatch(PerExample):
    """Equality with any reference after SQuAD's normalisation."""

    def _compute(self, predictions: Sequence[str], references: Sequence[Sequence[str]]) -> Values:
        pairs = zip(predictions, references, strict=True)
        return {"exact_match": [exact_match(*pair) for pair in pairs]}


class Rouge(PerExample):
    """ROUGE-1, -2, -L and -Lsum F-measures, unstemmed, best over the references."""

    def _compute(self, predictions: Sequence[str], references: Sequence[Sequence[str]]) -> Values:
        pairs = list(zip(predictions, references, strict=True))
        kinds = ("rouge1", "rouge2", "rougeL", "rougeLsum")
        return {kind: [rouge(kind, *pair) for pair in pairs] for kind in kinds}


class BertScoreF1(PerExample):
    """BERTScore F1, best over the references.

    `compute` raises ModelError where the encoder is not available.
    """

    def __init__(self, settings: BertScore) -> None:
        self._settings = settings
        super().__init__()

    def _compute(self, predictions: Sequence[str], references: Sequence[Sequence[str]]) -> Values:
        scores = bert_f1(predictions, references, self._settings)
        if isinstance(scores, Unavailable):
            raise ModelError(f"evaluation.bertscore: {scores.reason}. Name another model.")
        return {"bertscore": scores.f1}
