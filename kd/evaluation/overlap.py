"""Token overlap and exact match between a prediction and its references, after SQuAD.

Text is normalised as in SQuAD's own evaluation (Rajpurkar et al. 2016): lower case, no
ASCII punctuation, no articles, single spaces. Pure Python, so that scoring loads no model.
"""

import re
import string
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)


class Overlap(NamedTuple):
    """Shares of common tokens, each between 0 and 1."""

    f1: float
    precision: float
    recall: float


def normalise(text: str) -> str:
    """Lower-case `text` and drop punctuation, articles and superfluous space, in this order."""
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())


def token_overlap(prediction: str, reference: str) -> Overlap:
    """Overlap of two bags of normalised tokens; a repeated token counts as often as in both.

    Two texts without tokens agree fully (as in SQuAD 2.0 and in `exact_match`; SQuAD 1.1's
    script gives 0 there); a text without tokens shares nothing with any other.
    """
    predicted, expected = normalise(prediction).split(), normalise(reference).split()
    if not predicted or not expected:
        agreement = float(predicted == expected)
        return Overlap(agreement, agreement, agreement)
    common = (Counter(predicted) & Counter(expected)).total()
    if common == 0:
        return Overlap(0.0, 0.0, 0.0)
    precision, recall = common / len(predicted), common / len(expected)
    return Overlap(2 * precision * recall / (precision + recall), precision, recall)


def best_overlap(prediction: str, references: Sequence[str]) -> Overlap:
    """Overlap with the reference of the highest F1 (of equal ones: the higher precision).

    All three values come from this one reference. The ULD authors' script takes the three
    maxima apart, which may pair one reference's precision with another's recall.
    """
    return max(token_overlap(prediction, reference) for reference in references)


def exact_match(prediction: str, references: Sequence[str]) -> float:
    """1.0 if the normalised prediction equals any normalised reference, else 0.0."""
    return float(normalise(prediction) in {normalise(reference) for reference in references})
