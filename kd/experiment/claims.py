"""Claims: predicates over a table's scores, written into the experiment file beside their text.

A claim compares two sides, each a method's cells of one table, line by line:

    claims:
      half_is_enough:
        text: Half of the training rows with ULD do what all of them do with teacher text.
        source: arXiv 2402.12030, dataset-size ablation
        table: dataset_size
        where: {dataset: squad}
        left: {method: uld, fraction: 50}
        right: {method: teacher_text, fraction: 100}
        relation: at_least

An axis that the sides select (here the fraction) may differ between them; the others are
shared, and each of their combinations is a line of the claim. `where` narrows the lines.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import groupby
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from kd.experiment.base import Name, Natural, Percent, Positive, Rate, Score, Strict

Axis = Literal["dataset", "teacher", "student", "fraction", "test", "metric"]
AXES: tuple[Axis, ...] = ("dataset", "teacher", "student", "fraction", "test", "metric")
SEEDLESS = ("teacher_score", "native")  # columns of models that are not distilled


def _as_list(value: Any) -> Any:
    return value if isinstance(value, list) else [value]


Names = Annotated[list[Name], BeforeValidator(_as_list)]
Percents = Annotated[list[Percent], BeforeValidator(_as_list)]


class Where(Strict):
    """Lines that a claim is about: one value, or a list, for an axis. Empty: all."""

    dataset: Names = []
    teacher: Names = []
    student: Names = []
    fraction: Percents = []
    test: Names = []
    metric: Names = []


class Side(Strict):
    """One side of a comparison: a column of the table, and axes that the sides may differ in."""

    method: Name = Field(description="a method, 'teacher_score' or 'native'")
    dataset: Name | None = None
    teacher: Name | None = None
    student: Name | None = None
    fraction: Percent | None = None
    test: Name | None = None
    metric: Name | None = None
    seeds: list[Natural] = Field(
        default=[],
        description="by default the experiment's; disjoint ones compare a method with itself",
    )

    def selected(self) -> dict[Axis, Any]:
        """The axes that this side fixes."""
        return {axis: value for axis in AXES if (value := getattr(self, axis)) is not None}


class Claim(Strict):
    """A statement that scores can support or contradict."""

    text: str = Field(min_length=1, description="the claim in a sentence")
    source: str = Field(default="", description="who claims it, and where")
    table: Name
    where: Where = Where()
    left: Side
    right: Side
    relation: Literal["greater", "at_least", "equivalent", "rises", "falls"] = Field(
        default="greater",
        description="of left to right, 'greater' being better: of a metric of which less is better "
        "(a Brier score, a loss) a smaller value is greater; 'rises' and 'falls' are of the "
        "difference, in a trend",
    )
    margin: Rate = Field(
        default=0.0,
        description="points: greater by more than it, at least up to it, equivalent within it",
    )
    over: Literal["mean", "lines", "trend"] = Field(
        default="mean", description="the mean of all lines, a count of lines, or their trend"
    )
    count: Positive | Literal["all"] | None = Field(
        default=None, description="with over: lines, how many lines it must hold for at least"
    )
    along: Axis | None = Field(default=None, description="with over: trend, the axis")
    order: list[Name | Percent] = Field(
        default=[], description="the axis's values, first to last; by default the table's order"
    )
    metric: Score | None = Field(default=None, description="by default each dataset's own")

    @model_validator(mode="after")
    def _kind(self) -> "Claim":
        trend = self.over == "trend"
        if trend != (self.relation in ("rises", "falls")):
            raise ValueError("'over: trend' and the relations 'rises' and 'falls' go together")
        if trend != (self.along is not None) or (self.order and not trend):
            raise ValueError("'over: trend' needs 'along'; 'along' and 'order' need 'over: trend'")
        if (self.over == "lines") != (self.count is not None):
            raise ValueError("'over: lines' needs 'count', and 'count' needs 'over: lines'")
        if self.relation == "equivalent" and (self.margin == 0 or self.over != "mean"):
            raise ValueError("'equivalent' needs a 'margin' above 0 and 'over: mean'")
        return self

    @model_validator(mode="after")
    def _axes(self) -> "Claim":
        left, right = self.left.selected(), self.right.selected()
        alone = sorted(set(left) ^ set(right))
        if alone:
            raise ValueError(f"one side selects '{alone[0]}': select it on both, or in 'where'")
        narrowed = {axis for axis in AXES if getattr(self.where, axis)}
        twice = sorted(set(left) & (narrowed | {self.along}))
        if twice:
            raise ValueError(f"'{twice[0]}' is selected by the sides: leave it out elsewhere")
        for key, named in self._named_metrics().items():
            if self.metric and any(name != self.metric for name in named):
                raise ValueError(f"'metric' is {self.metric}, but '{key}' says {', '.join(named)}")
        if (self.left.seeds == []) != (self.right.seeds == []):
            raise ValueError("'seeds' must be given for both sides, or for none")
        if len(self.left.seeds) != len(self.right.seeds):
            raise ValueError("both sides need equally many 'seeds'")
        if self.left == self.right:
            raise ValueError("both sides are the same")
        return self

    def _named_metrics(self) -> dict[str, list[str]]:
        """Metrics that pick lines of the table, by key."""
        sides = {"left.metric": self.left.metric, "right.metric": self.right.metric}
        return {"where.metric": list(self.where.metric)} | {
            key: [name] for key, name in sides.items() if name
        }


class NamedClaim(Claim):
    """A claim as a table's specification carries it. Lists keep their order, mappings do not."""

    name: Name


@dataclass(frozen=True)
class Place:
    """Where a table has cells: a line without its method.

    `test` and `metric` are None where the table does not name them: the dataset's own.
    """

    dataset: str
    teacher: str
    student: str
    fraction: int
    test: str | None = None
    metric: str | None = None

    @property
    def tested(self) -> str:
        """The dataset whose test rows are answered."""
        return self.test or self.dataset


def place_of(axes: Mapping[str, Any]) -> Place:
    """The place that a line's axes name."""
    return Place(**{axis: axes[axis] for axis in AXES if axis in axes})


@dataclass(frozen=True)
class Pair:
    """One line of a claim: the places of its two sides, and its value on the trend's axis."""

    left: Place
    right: Place
    level: str | int | None = None


Columns = Mapping[Place, Sequence[str]]
"""The columns of scores that each place of a table has, in the table's order."""


def place_columns(
    rows: Iterable[tuple[Place, str | None]], baseline: str, methods: Sequence[str]
) -> Columns:
    """The columns of a table's places.

    Args:
        rows: its lines: a place, and a method where the table has one line a method.
        baseline: the method that lines are compared with.
        methods: methods of a table that has one column a method.
    """
    found: dict[Place, list[str]] = {}
    for place, method in rows:
        columns = found.setdefault(place, [*SEEDLESS])
        added = [baseline, method] if method else methods
        columns.extend(name for name in added if name not in columns)
    return found


def claim_pairs(claim: Claim, columns: Columns) -> list[Pair]:
    """The lines of `claim` in the order of `columns`, a table's columns by place.

    Returns only lines whose cells exist on both sides.
    """
    pairs = (_pair(claim, place) for place in columns if _wanted(claim.where, place))
    return [
        pair
        for pair in dict.fromkeys(pairs)
        if claim.left.method in columns.get(pair.left, ())
        and claim.right.method in columns.get(pair.right, ())
    ]


def _wanted(where: Where, place: Place) -> bool:
    values = asdict(place)
    return all(not getattr(where, axis) or values[axis] in getattr(where, axis) for axis in AXES)


def _pair(claim: Claim, place: Place) -> Pair:
    sides = [replace(place, **side.selected()) for side in (claim.left, claim.right)]
    level = getattr(place, claim.along) if claim.along else None
    return Pair(sides[0], sides[1], level)


def trends(claim: Claim, pairs: Iterable[Pair]) -> list[list[Pair]]:
    """The claim's lines as trends: lists that differ in `along` alone, in its order.

    Trends that lack one of the values are left out, as are those of one value.
    """
    axis = claim.along
    assert axis is not None
    pairs = list(pairs)
    levels = [pair.level for pair in pairs if pair.level is not None]
    order = claim.order or list(dict.fromkeys(levels))
    blank: dict[str, Any] = {axis: None}

    def rest(pair: Pair) -> str:
        return repr((replace(pair.left, **blank), replace(pair.right, **blank)))

    grouped = [list(group) for _, group in groupby(sorted(pairs, key=rest), key=rest)]
    found = [
        [pair for value in order for pair in group if pair.level == value] for group in grouped
    ]
    return [trend for trend in found if len(trend) == len(order) > 1]


def named(name: str, claim: Claim) -> NamedClaim:
    """`claim` under its name, as a table's specification has it."""
    return NamedClaim(name=name, **{field: getattr(claim, field) for field in Claim.model_fields})
