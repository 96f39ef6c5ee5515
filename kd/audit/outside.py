"""Inputs from outside the results: where they lie now, if they are here at all."""

from pathlib import Path

from kd.audit.scope import Scope


def find_outside(scope: Scope, recorded: str) -> Path | None:
    """An input by the path that was recorded, or by the end of that path in the checkout."""
    path = Path(recorded)
    if path.exists():
        return path
    for start in range(1, len(path.parts)):
        inside = scope.settings.checkout / Path(*path.parts[start:])
        if inside.exists():
            return inside
    return None
