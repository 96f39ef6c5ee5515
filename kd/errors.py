"""What `kd` refuses, each as one sentence: what is wrong, where, and how to mend it.

Every error a user can cause derives from `KdError`; the command line prints its
message without a traceback and exits with status 2. Anything else is a bug.
"""

import difflib
from collections.abc import Iterable


class KdError(Exception):
    """A refusal with a remedy. Base of all errors that a user can cause."""


class ExperimentError(KdError):
    """The experiment file is malformed or names something undefined."""


class DataError(KdError):
    """Rows are missing, malformed, duplicated or too long."""


class ModelError(KdError):
    """A model or tokenizer cannot be built, found or used as asked."""


class LossError(KdError):
    """A loss was asked for something it is not defined for."""


class ArtifactError(KdError):
    """A stage's input is missing, incomplete or not what its manifest says."""


class TrainingError(KdError):
    """Training cannot go on (a non-finite loss, for example)."""


def nearest(name: str, known: Iterable[str]) -> str:
    """Return "Did you mean 'x'? Known: a, b, c." for an undefined `name`."""
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    hint = f"Did you mean '{close[0]}'? " if close else ""
    return f"{hint}Known: {', '.join(names) or 'none'}."
