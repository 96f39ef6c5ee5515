"""Which values an option of a loss may take, so that a file is refused when it is read."""

import math
from dataclasses import dataclass
from typing import Any

from kd.errors import LossError, nearest


@dataclass(frozen=True)
class Interval:
    """An interval of numbers, written as in mathematics: '[0, 1]', '(0, inf)'."""

    text: str

    def __contains__(self, value: float) -> bool:
        low, high = (float(bound) for bound in self.text[1:-1].split(","))
        above = value >= low if self.text[0] == "[" else value > low
        below = value <= high if self.text[-1] == "]" else value < high
        return above and below


@dataclass(frozen=True)
class Values:
    """What one option may be: of its default's type, one of `choices`, in `interval`."""

    default: Any
    choices: tuple[str, ...] = ()
    interval: Interval | None = None

    def check(self, where: str, value: Any) -> None:
        """Refuse a value that the option may not take.

        Raises:
            LossError: it is of another type, none of the choices, not finite or outside.
        """
        if isinstance(self.default, list):
            if not isinstance(value, list) or not value:
                raise LossError(f"{where} is {value!r}, but must be a list, and not empty.")
            for item in value:
                Values(self.default[0], self.choices, self.interval).check(where, item)
            return
        if value is None and self.default is None:
            return
        if not self._fits(value):
            kind = "a number" if self.default is None else f"of the type of {self.default!r}"
            raise LossError(f"{where} is {value!r}, but must be {kind}, its default.")
        if self.choices and value not in self.choices:
            raise LossError(f"{where} is {value!r}. {nearest(str(value), self.choices)}")
        if isinstance(value, int | float) and not isinstance(value, bool):
            self._check_number(where, value)

    def _fits(self, value: Any) -> bool:
        if isinstance(self.default, float) or self.default is None:
            return isinstance(value, int | float) and not isinstance(value, bool)
        return type(value) is type(self.default)

    def _check_number(self, where: str, value: float) -> None:
        if not math.isfinite(value):
            raise LossError(f"{where} is {value}, but must be finite.")
        if self.interval is not None and value not in self.interval:
            raise LossError(f"{where} is {value}, but must lie in {self.interval.text}.")
