"""The plug-in interface: what the audit must know of one paper's result files.

A protocol is one module in `kd/audit/published/protocols` that binds `PROTOCOL` to an instance
of a subclass of `Protocol`; its file's name is its name (docs/audit-published.md). It says how
files are laid out, what is in them and how their authors scored. Everything else (walking the
folder safely, comparing, statistics, rendering) is the same for all papers.
"""

import importlib
import pkgutil
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import ClassVar, Literal

from kd.audit.published import protocols
from kd.errors import DataError, nearest

Rule = Literal["exact", "bootstrap", "encoder"]
"""When a published metric agrees with the recomputed one: equal at two decimals; within
the error of the median of a bootstrap; or not recomputed here, since it needs a large encoder."""


class MalformedError(Exception):
    """A file is not what its protocol says; the message says why, without the file's name."""


@dataclass(frozen=True)
class Run:
    """What a score file's place in the layout says of it.

    `dataset`, `model` and `teacher` name what was compared; `teacher` is empty for a model
    that was not distilled. Runs are comparable if these three and `variant` (such as the share
    of the training data) are equal. `settings` are choices that methods under comparison
    should share: checkpoint, shots, title.
    """

    path: PurePosixPath
    predictions: PurePosixPath
    dataset: str
    model: str
    method: str
    teacher: str = ""
    variant: str = ""
    settings: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Published:
    """What a score file claims.

    `values` are as in the file, finite, in its own scale (fractions or percent); `rows` is the
    number of test rows, or None if not stated; `declared` repeats facts of the `Run` under
    their names there ("dataset", "model", "teacher", "shots", …), to be compared with them;
    `problems` are reasons why a value that should be there could not be read.
    """

    values: Mapping[str, float]
    rows: int | None
    declared: Mapping[str, str] = field(default_factory=dict)
    problems: tuple[str, ...] = ()


@dataclass(frozen=True)
class Row:
    """One prediction; `references` as the authors scored it, `complete` as they should have."""

    prediction: str
    references: tuple[str, ...]
    complete: tuple[str, ...]


@dataclass(frozen=True)
class Scored:
    """Recomputed scores, all in percent.

    `authors` are the means by the authors' own scoring, `correct` those by sound scoring;
    `per_row` are the authors' values of each row, for standard errors and paired tests; `quirks`
    counts the rows that each peculiarity of the authors' scoring touches.
    """

    authors: Mapping[str, float]
    correct: Mapping[str, float]
    per_row: Mapping[str, Sequence[float]]
    quirks: Mapping[str, int]


@dataclass(frozen=True)
class BertScore:
    """How the authors' BERTScore F1 was computed, and its name in their files."""

    metric: str
    layer: int
    rescale: bool


class Protocol(ABC):
    """One paper's layout and scoring. Texts come from untrusted files: never trust a shape."""

    layout: ClassVar[str]
    """The pattern of a score file, for messages."""
    rules: ClassVar[Mapping[str, Rule]]
    """Every metric of a score file, and when it agrees."""
    baseline: ClassVar[str]
    """The `Run.method` that all other distilled methods are compared with."""
    compared: ClassVar[tuple[str, ...]]
    """Metrics (of `Scored.per_row`) whose differences are tested for significance."""
    bertscore: ClassVar[BertScore | None] = None
    """The encoder's settings behind one of the metrics of rule "encoder", if it can be had."""
    empty_candidate: ClassVar[Mapping[str, float]] = {}
    """For metrics that an empty prediction drags far down: its value in percent."""

    @property
    def name(self) -> str:
        """Name of its module, by which `--protocol` finds it."""
        return type(self).__module__.rpartition(".")[2]

    @abstractmethod
    def run(self, path: PurePosixPath) -> Run | None:
        """What `path`, relative to the audited folder, is; None if it is no score file.

        Raises:
            MalformedError: named like a score file, but in no place that the layout knows.
        """

    @abstractmethod
    def is_predictions(self, path: PurePosixPath) -> bool:
        """Whether `path` is named like a file of predictions."""

    @abstractmethod
    def published(self, text: str) -> Published:
        """Read a score file.

        Raises:
            MalformedError: nothing in it can be read.
        """

    @abstractmethod
    def rows(self, text: str) -> list[Row]:
        """Read a predictions file, all of it.

        Raises:
            MalformedError: a row is malformed; the message says which.
        """

    @abstractmethod
    def score(self, rows: Sequence[Row]) -> Scored:
        """Score at least one row by both protocols."""

    def inconsistencies(self, values: Mapping[str, float]) -> list[str]:
        """Why `values` (percent, any of `rules` missing) cannot all be right; none by default."""
        del values
        return []


def available_protocols() -> list[str]:
    """Names of all protocols, sorted."""
    return sorted(module.name for module in pkgutil.iter_modules(protocols.__path__))


def find_protocol(name: str) -> Protocol:
    """The protocol called `name`.

    Raises:
        DataError: there is none, or its module binds no `PROTOCOL`.
    """
    if name not in available_protocols():
        raise DataError(f"'{name}' is no protocol. {nearest(name, available_protocols())}")
    module = importlib.import_module(f"{protocols.__name__}.{name}")
    found = getattr(module, "PROTOCOL", None)
    if not isinstance(found, Protocol):
        raise DataError(
            f"{module.__name__} binds no PROTOCOL. Add `PROTOCOL = MyProtocol()` at its end."
        )
    return found
