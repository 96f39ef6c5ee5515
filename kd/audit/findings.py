"""What every audit yields: findings, each with its evidence and the next command.

`docs/audit-published.md` documents the JSON form.
"""

import difflib
import json
import shlex
from collections.abc import Iterable, Mapping
from pathlib import PurePath
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, JsonValue

from kd.errors import DataError

SCHEMA: Literal[1] = 1

Status = Literal["fail", "warn", "not applicable", "pass"]
WORST_FIRST: tuple[Status, ...] = ("fail", "warn", "not applicable", "pass")


def printable(text: str) -> str:
    """`text` with everything escaped that could move a cursor or break an encoding."""
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode() for char in text
    )


# Names and contents of other people's files end up in these.
Shown = Annotated[str, BeforeValidator(printable)]


class Finding(BaseModel):
    """What one check says of one subject."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    check: str = Field(description="name of the check, one of a fixed list per audit")
    subject: Shown = Field(description="what was checked: a path inside the audited folder, a cell")
    status: Status
    evidence: Shown = Field(description="one sentence: what was seen, with the numbers")
    next_command: str = Field(
        default="", description="what to run next, inside the audited folder; empty: nothing to do"
    )
    rule: str = Field(default="", description="which rule of the check, where it has several")
    derived_from: str = Field(
        default="", description="subject of the finding that this one follows from; empty: its own"
    )
    details: dict[str, JsonValue] = Field(
        default={}, description="the numbers behind the evidence; keys depend on the check"
    )


class Report(BaseModel):
    """All findings of one audit, in the order in which they are to be read: worst first."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    schema_version: Literal[1] = SCHEMA
    audit: str = Field(description="which audit this is, as in its command")
    subject: Shown = Field(description="name of what was audited, never where it lies")
    summary: str = Field(description="one sentence of counts")
    findings: tuple[Finding, ...]

    def count(self, status: Status) -> int:
        """How many findings have `status`."""
        return sum(finding.status == status for finding in self.findings)

    def only(self, subject: str) -> "Report":
        """The findings whose subject is `subject`, lies in that folder, or is a part of it.

        Raises:
            DataError: there are none.
        """
        wanted = subject.removeprefix("./").rstrip("/")
        kept = [
            finding
            for finding in self.findings
            if finding.subject == wanted or finding.subject.startswith((f"{wanted}/", f"{wanted},"))
        ]
        if not kept:
            known = sorted({finding.subject for finding in self.findings})
            close = difflib.get_close_matches(wanted, known, n=1, cutoff=0.5)
            hint = f"Did you mean '{close[0]}'?" if close else "--all lists every subject."
            raise DataError(f"No finding is about '{subject}'. {hint}")
        return self.model_copy(update={"findings": tuple(kept)})

    def exit_code(self, *, strict: bool = False) -> int:
        """1 if a check failed (with `strict`: or warned), else 0. A usage error is 2."""
        bad = self.count("fail") + (self.count("warn") if strict else 0)
        return int(bad > 0)

    def to_json(self) -> str:
        """ASCII JSON, the same bytes for the same findings."""
        return json.dumps(self.model_dump(mode="json"), indent=1, sort_keys=True, allow_nan=False)


def finding(  # noqa: PLR0917 (read as a sentence)
    check: str,
    subject: str,
    status: Status,
    evidence: str,
    next_command: str = "",
    details: Mapping[str, JsonValue] | None = None,
) -> Finding:
    """Build a `Finding`; one that passed needs no next command."""
    return Finding(
        check=check,
        subject=subject,
        status=status,
        evidence=evidence,
        next_command="" if status == "pass" else next_command,
        details=dict(details or {}),
    )


def in_reading_order(findings: Iterable[Finding], checks: tuple[str, ...]) -> tuple[Finding, ...]:
    """Sort `findings` by status (worst first), then check (in the order of `checks`), subject.

    Among findings of one status, those that follow from another finding come last.
    """
    return tuple(
        sorted(
            findings,
            key=lambda finding: (
                WORST_FIRST.index(finding.status),
                bool(finding.derived_from),
                checks.index(finding.check),
                finding.subject,
            ),
        )
    )


def shell_command(*words: str, paths: Iterable[PurePath | str] = ()) -> str:
    """`words` and `paths` quoted for a shell; nothing if one cannot be shown as it is."""
    files = [str(path) for path in paths]
    every = [*words, *(f"./{file}" if file.startswith("-") else file for file in files)]
    if any(printable(word) != word for word in every):
        return ""
    return shlex.join(every)
