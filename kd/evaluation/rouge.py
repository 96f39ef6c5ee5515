"""ROUGE F-measures per example, by Google's `rouge_score`, without its bootstrap.

No stemming. `rouge_score`'s aggregator draws from an unseeded generator, so that its
"mid" value differs between runs; only its per-example scores are used.
Importing this module costs about two seconds (`rouge_score` imports nltk).
"""

from collections.abc import Sequence
from functools import cache

from rouge_score.rouge_scorer import RougeScorer


@cache
def _scorer(kind: str) -> RougeScorer:
    return RougeScorer([kind], use_stemmer=False)


def rouge(kind: str, prediction: str, references: Sequence[str]) -> float:
    """Best F-measure of `kind` over the references, between 0 and 1.

    Args:
        kind: "rouge1", "rouge2", "rougeL" or "rougeLsum" (sentences end at newlines).
        prediction: the generated text.
        references: at least one.
    """
    return float(_scorer(kind).score_multi(references, prediction)[kind].fmeasure)
