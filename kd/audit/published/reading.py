"""Helpers for protocols whose files are JSON: shapes are checked, and nothing raises KeyError."""

import json
from collections.abc import Iterable, Iterator
from typing import Any

from kd.audit.published.protocol import MalformedError

MAX_NUMBER = 1e9  # no score is near it, and nothing computed from smaller ones overflows


def json_object(text: str) -> dict[str, Any]:
    """Parse one JSON object.

    Raises:
        MalformedError: it is no JSON, no object, or a key occurs twice.
    """
    value = _parse(text, unique=True)
    if not isinstance(value, dict):
        raise MalformedError("holds no JSON object")
    return value


def json_lines(text: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Parse one JSON object a line; yields ("line 3", the object), blank lines left out.

    Raises:
        MalformedError: a line holds no JSON object.
    """
    # Not `splitlines`: it also cuts at characters that JSON strings may hold.
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            value = _parse(line)
        except MalformedError as error:
            raise MalformedError(f"line {number} {error}") from None
        if not isinstance(value, dict):
            raise MalformedError(f"line {number} holds no JSON object")
        yield f"line {number}", value


def usable_numbers(
    content: dict[str, Any], names: Iterable[str]
) -> tuple[dict[str, float], list[str]]:
    """The numbers of sane size under `names`, and for every other one why it is none."""
    values: dict[str, float] = {}
    problems: list[str] = []
    for name in names:
        value = content.get(name)
        if name not in content:
            problems.append(f"'{name}' is missing")
        elif isinstance(value, bool) or not isinstance(value, int | float):
            problems.append(f"'{name}' is {str(value)[:20]!r}, not a number")
        elif not -MAX_NUMBER < value < MAX_NUMBER:  # false for NaN, too
            problems.append(f"'{name}' is {str(value)[:20]}, not a usable number")
        else:
            values[name] = float(value)
    return values, problems


def _parse(text: str, unique: bool = False) -> Any:
    try:
        return json.loads(text, object_pairs_hook=_unique if unique else None)
    except RecursionError:
        raise MalformedError("is nested too deeply") from None
    except json.JSONDecodeError as error:
        raise MalformedError(f"is no JSON ({error.msg} at character {error.pos})") from None
    except ValueError as error:  # an integer of thousands of digits
        raise MalformedError(f"is no usable JSON ({error})") from None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise MalformedError(f"has '{name[:40]}' twice")
        found[name] = value
    return found
