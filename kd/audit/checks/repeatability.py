"""I. Repeatability: the same again, when it is made again. Costs compute, so it is asked for."""

from kd.audit.findings import Finding
from kd.audit.notes import REPEATABILITY, Voice
from kd.audit.repeat import repeat_cells
from kd.audit.scope import Scope


def check(scope: Scope) -> list[Finding]:
    """Run the chosen cells again, if that is asked for."""
    voice = Voice(REPEATABILITY, scope)
    if scope.settings.repeat is None:
        return [
            voice.not_applicable(
                "repeat",
                "nothing was run again, as that was not asked for",
                "kd audit … --repeat 1",
            )
        ]
    return list(repeat_cells(voice, scope.settings.repeat))
