"""What each metric means: whether more or less of it is better, and its unit.

All else follows from here: the sign of a gain, its colour, and the words beside it.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, get_args

from kd.experiment.base import WHOLE, Curve, Score


@dataclass(frozen=True)
class Metric:
    """A score, or a number about a training curve.

    Attributes:
        better: which way is better; 'neither' for what only describes a model.
        unit: of values and differences. Points are hundredths of the scale from 0 to 1.
        per_example: whether each test example has a value of its own.
    """

    better: Literal["higher", "lower", "neither"] = "higher"
    unit: Literal["points", "nats a token"] = "points"
    per_example: bool = True

    @property
    def sign(self) -> int:
        """What a difference is multiplied by to become a gain: positive is better."""
        return -1 if self.better == "lower" else 1

    @property
    def decimals(self) -> int:
        """Decimals of values for reading."""
        return 2 if self.unit == "points" else 3


METRICS: dict[str, Metric] = {
    **{name: Metric(per_example=name not in WHOLE) for name in get_args(Score)},
    "confidence": Metric("neither"),
    "brier": Metric("lower"),
    "ece": Metric("lower", per_example=False),
    **{name: Metric("lower", "nats a token", per_example=False) for name in get_args(Curve)},
}


def metric_named(name: str) -> Metric:
    """The metric of a name; of an unknown one, a score in percent."""
    return METRICS.get(name, Metric())


def comparable(names: Iterable[str]) -> bool:
    """Whether values by these metrics can be averaged or compared with each other."""
    found = [metric_named(name) for name in names]
    return len({(one.sign, one.unit, one.per_example) for one in found}) <= 1


def direction_sentences(names: Iterable[str]) -> list[str]:
    """What is to be known of metrics that are not scores of which more is better."""
    names = list(dict.fromkeys(names))
    lower = [name for name in names if metric_named(name).better == "lower"]
    neither = [name for name in names if metric_named(name).better == "neither"]
    found = []
    if lower:
        found.append(f"Of {joined(lower)} less is better: a gain is a decrease.")
    if neither:
        found.append(
            f"More {joined(neither)} is neither better nor worse: its gain is a difference."
        )
    return found


def unit_text(names: Iterable[str]) -> str:
    """Units of differences: `points`, or which metrics are in which."""
    by_unit: dict[str, list[str]] = {}
    for name in dict.fromkeys(names):
        by_unit.setdefault(metric_named(name).unit, []).append(name)
    if len(by_unit) == 1:
        return next(iter(by_unit))
    return ", ".join(f"{unit} ({joined(of)})" for unit, of in by_unit.items())


def joined(words: Iterable[str]) -> str:
    """Words as a list in a sentence: `a, b and c`."""
    *most, last = words
    return f"{', '.join(most)} and {last}" if most else last
