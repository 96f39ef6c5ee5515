"""Which findings follow from others: the root cause stands first, what it entails says so.

A damaged artifact damages whatever is read from it. So a finding about an artifact follows from
an integrity finding about that artifact, or about one that it was made from.
"""

from collections.abc import Iterable, Sequence

from kd.audit.findings import Finding
from kd.audit.notes import (
    COMPLETENESS,
    CONSISTENCY,
    CURRENCY,
    INTEGRITY,
    PINNING,
    VALIDITY,
)
from kd.audit.places import split_evaluation
from kd.audit.scope import Scope

_DAMAGE = ("manifest", "outputs", "outside")  # rules of integrity that need no other cause
_OWN_MANIFEST = (CURRENCY, PINNING)  # checks that read an artifact's own manifest and no more


def mark_consequences(findings: Sequence[Finding], scope: Scope) -> list[Finding]:
    """The same findings, each failure or warning that follows from another naming it."""
    causes = _Causes(findings, scope)
    return [
        finding.model_copy(update={"derived_from": causes.of(finding) or ""})
        if finding.status in ("fail", "warn")
        else finding
        for finding in findings
    ]


class _Causes:
    def __init__(self, findings: Sequence[Finding], scope: Scope) -> None:
        self._findings = [finding for finding in findings if finding.status == "fail"]
        self._ancestors = {one.key: scope.ancestors(one) for one in scope.artifacts}
        self._damaged: dict[str, str] = {}
        for rule in _DAMAGE:
            for finding in self._of(INTEGRITY, rule):
                self._damaged.setdefault(finding.subject, finding.subject)
        self._replaced: dict[str, str] = {}
        for finding in self._of(INTEGRITY, "inputs"):
            if self._upstream(finding) is None:
                self._damaged.setdefault(finding.subject, finding.subject)
                self._replaced.setdefault(_subject(str(finding.details["writer"])), finding.subject)

    def _of(self, check: str, *rules: str) -> list[Finding]:
        return [one for one in self._findings if one.check == check and one.rule in rules]

    def of(self, finding: Finding) -> str | None:
        """Subject of the finding that `finding` follows from; None where it is a root."""
        if finding.check == INTEGRITY:
            return self._integrity(finding)
        if finding.check in _OWN_MANIFEST:
            return (
                self._own_manifest(finding)
                or self._replacement_of(finding)
                or self._workflow(finding)
            )
        return (
            self._damage_of(finding)
            or self._replacement_of(finding)
            or self._stale_code(finding)
            or self._missing_cells(finding)
            or self._reused_seed(finding)
        )

    def _integrity(self, finding: Finding) -> str | None:
        if finding.rule in ("manifest", "outside"):
            return None
        if finding.rule == "outputs":
            return self._first(self._of(INTEGRITY, "manifest"), finding)
        if finding.rule == "inputs":
            return self._upstream(finding)
        if finding.rule == "expected identity":
            return next((one.subject for one in self._of(INTEGRITY, "manifest")), None)
        return (
            self._damage_of(finding)
            or self._first(self._of(INTEGRITY, "recomputed"), finding, upstream=True)
            or self._first(self._of(CURRENCY, "code"), finding)
        )

    def _upstream(self, finding: Finding) -> str | None:
        """An input that is not as recorded follows from the damage of what wrote it."""
        writer = str(finding.details.get("writer"))
        own = [one for one in self._of(INTEGRITY, "manifest") if one.subject == finding.subject]
        if own:
            return finding.subject
        return (
            writer if any(writer == one.subject for one in self._of(INTEGRITY, *_DAMAGE)) else None
        )

    def _damage_of(self, finding: Finding) -> str | None:
        for key in _artifacts(finding):
            for place in (key, *sorted(self._ancestors.get(key, ()))):
                if place in self._damaged:
                    return self._damaged[place]
        return None

    def _replacement_of(self, finding: Finding) -> str | None:
        """What lies in the place of another run tells of that other run."""
        places = {_subject(key) for key in _artifacts(finding)}
        return self._replaced[min(places)] if places and places <= set(self._replaced) else None

    def _own_manifest(self, finding: Finding) -> str | None:
        keys = _artifacts(finding)
        broken = {one.subject for one in self._of(INTEGRITY, "manifest")}
        return keys[0] if keys and set(keys) <= broken else None

    def _workflow(self, finding: Finding) -> str | None:
        if finding.rule != "workflow":
            return None
        earlier = (INTEGRITY, CURRENCY, COMPLETENESS)
        others = [one for one in self._findings if one.check in earlier and one != finding]
        return others[0].subject if others else None

    def _stale_code(self, finding: Finding) -> str | None:
        if finding.check != CONSISTENCY or finding.rule not in ("code", "rows"):
            return None
        return self._first(self._of(CURRENCY, "code", "specification"), finding)

    def _missing_cells(self, finding: Finding) -> str | None:
        if finding.check != COMPLETENESS or finding.rule != "runs":
            return None
        return next((one.subject for one in self._of(COMPLETENESS, "declared cells")), None)

    def _reused_seed(self, finding: Finding) -> str | None:
        """Identical weights follow from one seed used twice."""
        if finding.check != VALIDITY or finding.rule != "seeds":
            return None
        keys = _artifacts(finding)
        if len(keys) < 2:
            return None
        wrong = [one for one in self._of(VALIDITY, "seeds") if len(_artifacts(one)) == 1]
        return next((one.subject for one in wrong if one.subject in keys), None)

    def _first(
        self, causes: Iterable[Finding], finding: Finding, *, upstream: bool = False
    ) -> str | None:
        """The first cause that is about an artifact of `finding`, or one it was made from."""
        places = set(_artifacts(finding))
        if upstream:
            places |= {key for place in places for key in self._ancestors.get(place, ())}
        for cause in causes:
            if cause is not finding and places & set(_artifacts(cause)):
                return cause.subject
        return None


def _subject(key: str) -> str:
    """The folder of the run, teacher or student that an artifact belongs to."""
    return split_evaluation(key.rpartition("/")[0])[0]


def _artifacts(finding: Finding) -> list[str]:
    """Keys of the artifacts that a finding is about."""
    found = finding.details.get("artifacts", [])
    return [str(key) for key in found] if isinstance(found, list) else []
