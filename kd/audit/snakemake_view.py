"""What Snakemake would do with a target, as far as it is asked."""

from collections.abc import Iterator

from kd.audit.findings import Finding
from kd.audit.notes import CURRENCY, Voice, counted, some
from kd.audit.scope import Scope, Settings
from kd.workflow import Planned, WorkflowError, dry_run, is_recorded


def workflow_findings(voice: Voice) -> Iterator[Finding]:
    """Whether Snakemake's records are there, and whether a dry run would do anything."""
    checkout = voice.scope.results.resolve().parent.parent
    tables = [view.artifact for view in voice.scope.tables if view.artifact.content]
    targets = [voice.target_of(artifact) for artifact in tables]
    if not targets or not (checkout / "Snakefile").is_file():
        yield voice.not_applicable("workflow", "no Snakefile above these results makes a table")
        return
    unknown = [target for target in targets if not is_recorded(target, checkout)]
    if unknown:
        yield voice.say(
            "warn",
            "workflow records",
            some(unknown),
            "Snakemake has no record of making it, so it would miss edits of parameters and code",
            then=f"snakemake --force {' '.join(unknown)}",
        )
    else:
        count = counted(len(targets), "table")
        yield voice.passed("workflow records", f"Snakemake remembers how it made {count}")
    if not voice.scope.settings.workflow:
        yield voice.not_applicable(
            "workflow", "Snakemake was not asked what it would do", then="kd audit … --workflow"
        )
        return
    yield _dry_run(voice, targets)


def planned_jobs(scope: Scope, settings: Settings) -> list[Planned] | None:
    """The jobs that Snakemake would run for a scope; None where no Snakefile makes it.

    Raises:
        WorkflowError: Snakemake refuses.
    """
    checkout = scope.results.resolve().parent.parent
    if not (checkout / "Snakefile").is_file():
        return None
    voice = Voice(CURRENCY, scope)
    ends = [view.artifact for view in scope.tables] or scope.sinks
    return dry_run(
        [voice.target_of(artifact) for artifact in ends],
        experiment=scope.experiment.name if scope.experiment else scope.results.name,
        overrides=settings.overrides,
        checkout=checkout,
    )


def _dry_run(voice: Voice, targets: list[str]) -> Finding:
    scope = voice.scope
    try:
        planned = planned_jobs(scope, scope.settings)
    except WorkflowError as error:
        return voice.not_applicable("workflow", str(error))
    if not planned:
        return voice.passed("workflow", "a dry run of Snakemake has nothing to do")
    first = planned[0]
    return voice.say(
        "fail",
        "workflow",
        scope.target.name,
        f"Snakemake would run {counted(len(planned), 'job')}; first: {first.job} "
        f"({first.reason.partition(':')[0]})",
        then=f"kd explain {targets[0]}",
        numbers={"jobs": [one.job for one in planned]},
    )
