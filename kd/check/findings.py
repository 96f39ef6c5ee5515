"""Findings: one line each, with how bad it is and what to do."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

Severity = Literal["error", "warning", "unknown", "ok"]
ORDER: tuple[Severity, ...] = ("error", "warning", "unknown", "ok")
_COUNTED = {
    "error": ("error", "errors"),
    "warning": ("warning", "warnings"),
    "unknown": ("not checked", "not checked"),
    "ok": ("in order", "in order"),
}


@dataclass(frozen=True)
class Finding:
    """What was found about one model, dataset or machine.

    Attributes:
        severity: 'error' stops a job; 'warning' runs, but not as one may think; 'unknown' could
            not be checked here; 'ok' is in order.
        subject: key of the experiment file, or 'machine'.
        text: what is the case, and what to do.
    """

    severity: Severity
    subject: str
    text: str

    def __str__(self) -> str:
        return f"{self.severity:8} {self.subject}: {self.text}"


def ordered(findings: Iterable[Finding]) -> list[Finding]:
    """The worst first; otherwise in the order of the experiment file."""
    return sorted(findings, key=lambda finding: ORDER.index(finding.severity))


def counted(findings: Iterable[Finding]) -> str:
    """How many there are of each severity: '2 errors, 1 warning, 12 in order'."""
    counts = Counter(finding.severity for finding in findings)
    return ", ".join(
        f"{counts[severity]} {_COUNTED[severity][counts[severity] > 1]}"
        for severity in ORDER
        if counts[severity]
    )
