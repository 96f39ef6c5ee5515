"""What is exported: a table, a run or an experiment whose files are what their manifests say."""

from datetime import UTC, datetime, timedelta

from kd.audit.chain import Artifact
from kd.audit.checks import integrity
from kd.audit.scope import Scope, Settings, open_scope
from kd.audit.target import Target
from kd.errors import ArtifactError, KdError


class ExportError(KdError):
    """Something cannot be exported as asked."""


def open_subject(target: Target, experiment: str | None = None) -> Scope:
    """The manifests behind `target`, after the audit's check of their integrity.

    Raises:
        ArtifactError: there are none, or a file is not what its manifest says.
        ExperimentError: `experiment` was named and cannot be read.
    """
    scope = open_scope(target, Settings(experiment=experiment))
    failed = [finding for finding in integrity.check(scope) if finding.status == "fail"]
    if failed:
        first = failed[0]
        raise ArtifactError(
            f"{first.subject}: {first.evidence}. Nothing is exported that does not hold; "
            f"`kd audit` tells all {len(failed)} failures."
        )
    return scope


def started(artifact: Artifact) -> datetime | None:
    """When a stage began, in UTC; None where its manifest does not say."""
    try:
        return datetime.fromisoformat(str(artifact.context["started"])).astimezone(UTC)
    except (KeyError, ValueError):
        return None


def finished(artifact: Artifact) -> datetime | None:
    """When a stage was done, in UTC; None where its manifest does not say when it began."""
    begin = started(artifact)
    return None if begin is None else begin + timedelta(seconds=artifact.seconds)


def span(artifacts: list[Artifact]) -> tuple[datetime | None, datetime | None]:
    """From the first beginning to the last end."""
    begins = [time for one in artifacts if (time := started(one)) is not None]
    ends = [time for one in artifacts if (time := finished(one)) is not None]
    return min(begins, default=None), max(ends, default=None)


def commits(scope: Scope) -> list[str]:
    """The commits that the artifacts were made from, sorted; without those outside of git."""
    found = (artifact.context.get("commit") for artifact in scope.artifacts)
    return sorted({str(commit) for commit in found if commit})
