"""Checks of options that several losses have in common."""

from collections.abc import Iterable

from kd.errors import LossError, nearest


def require_share(option: str, value: float) -> None:
    """Refuse a value that is no share of a whole.

    Raises:
        LossError: it is not between 0 and 1.
    """
    if not 0 <= value <= 1:
        raise LossError(f"{option} is {value}, but must be between 0 and 1.")


def require_known(option: str, value: str, known: Iterable[str]) -> None:
    """Refuse a value that is none of those that an option knows.

    Raises:
        LossError: it is not, with the nearest one.
    """
    known = list(known)
    if value not in known:
        raise LossError(f"{option} '{value}' does not exist. {nearest(value, known)}")
