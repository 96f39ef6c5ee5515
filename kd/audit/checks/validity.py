"""F. Validity: the numbers measure what the table says they measure."""

from itertools import chain as joined

from kd.audit.findings import Finding
from kd.audit.leakage import leakage, selection
from kd.audit.notes import VALIDITY, Voice
from kd.audit.outputs import answers, dropped_rows, predictions, teachers
from kd.audit.scope import Scope
from kd.audit.training_runs import curves, seeds, weights


def check(scope: Scope) -> list[Finding]:
    """Leakage, selection, seeds, weights, curves, answers, and students above their teacher."""
    voice = Voice(VALIDITY, scope)
    rules = (
        leakage,
        selection,
        seeds,
        weights,
        curves,
        answers,
        predictions,
        dropped_rows,
        teachers,
    )
    return list(joined.from_iterable(rule(voice) for rule in rules))
