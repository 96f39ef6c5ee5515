"""Whether the losses of an experiment are defined for its pairs of models, before any job."""

from collections.abc import Iterator, Mapping

from kd.check.findings import Finding
from kd.check.models import Description
from kd.experiment.expansion import all_runs
from kd.experiment.schema import Experiment
from kd.losses.catalogue import loss_info


def pair_findings(
    experiment: Experiment, described: Mapping[str, Description]
) -> Iterator[Finding]:
    """One finding for each method and pair whose tokens differ where the loss compares columns.

    Args:
        experiment: what is asked.
        described: configurations and tokenizers that are at hand, by the model's key.
    """
    pairs = dict.fromkeys((run.method, run.teacher, run.student) for run in all_runs(experiment))
    for method, teacher, student in pairs:
        loss = experiment.methods[method].loss
        if loss == "none" or not loss_info(loss).same_vocabulary:
            continue
        first, second = described.get(f"teachers.{teacher}"), described.get(f"students.{student}")
        problem = _difference(first, second) if first and second else None
        if problem:
            yield Finding(
                "error",
                f"methods.{method}",
                f"'{loss}' compares column by column, but {teacher} and {student} {problem}. Leave "
                "the pair out, or name a loss that works across tokenizers (`kd losses`).",
            )


def _difference(first: Description, second: Description) -> str | None:
    """Why columns of two models do not mean the same; None if they do, or nothing is known."""
    tokens = first.tokens, second.tokens
    if None not in tokens and tokens[0] != tokens[1]:
        return "have other tokens"
    widths = first.width, second.width
    if None not in widths and widths[0] != widths[1]:
        return f"have output layers of {widths[0]} and {widths[1]} columns"
    return None
