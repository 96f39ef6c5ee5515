"""Names that an experiment uses and must define, and pairs that cannot work together.

All findings are collected: a user mends a file once, not once per error.
"""

from collections.abc import Iterable, Iterator
from typing import get_args

from kd.errors import LossError, nearest
from kd.experiment.base import Curve
from kd.experiment.claim_findings import claim_findings
from kd.experiment.claims import Place, place_columns
from kd.experiment.expansion import table_methods, table_rows
from kd.experiment.logits import store_findings, variant_of
from kd.experiment.methods import Method
from kd.experiment.requirements import inapplicable
from kd.experiment.schema import Experiment
from kd.losses.catalogue import available_losses, loss_info


def check_references(experiment: Experiment) -> list[str]:
    """Return one sentence per undefined name or impossible pair, in a fixed order."""
    found = [
        *_table_names(experiment),
        *_shots(experiment),
        *_undefined("training_on", experiment.training_on, experiment.datasets),
        *_losses(experiment),
        *_tokenizer_pairs(experiment),
        *_bertscore(experiment),
    ]
    return found or list(_claims(experiment))  # a claim needs tables that can be laid out


def _undefined(key: str, names: Iterable[str], known: Iterable[str]) -> Iterator[str]:
    known = list(known)
    for name in names:
        if name not in known:
            yield f"'{key}' names '{name}', which is not defined. {nearest(name, known)}"


def _table_names(experiment: Experiment) -> Iterator[str]:
    for name, table in experiment.tables.items():
        key = f"tables.{name}"
        yield from _undefined(f"{key}.datasets", table.datasets, experiment.datasets)
        yield from _undefined(f"{key}.tests", table.tests, experiment.datasets)
        computed = [*experiment.evaluation.metrics, *get_args(Curve)]
        yield from _undefined(f"{key}.metrics", table.metrics, computed)
        yield from _undefined(f"{key}.teachers", table.teachers, experiment.teachers)
        yield from _undefined(f"{key}.students", table.students, experiment.students)
        yield from _undefined(f"{key}.methods", table.methods, experiment.methods)
        methods = table.methods or list(experiment.methods)
        yield from _undefined(f"{key}.baseline", [table.baseline], methods)


def _shots(experiment: Experiment) -> Iterator[str]:
    for role, models in (("teachers", experiment.teachers), ("students", experiment.students)):
        for name, model in models.items():
            if isinstance(model.shots, dict):
                yield from _undefined(f"{role}.{name}.shots", model.shots, experiment.datasets)
            if isinstance(model.prompt.system, dict):
                key = f"{role}.{name}.prompt.system"
                yield from _undefined(key, model.prompt.system, experiment.datasets)
            key = f"{role}.{name}.prompt.titles"
            yield from _undefined(key, model.prompt.titles, experiment.datasets)


def _losses(experiment: Experiment) -> Iterator[str]:
    for name, method in experiment.methods.items():
        key = f"methods.{name}"
        if method.loss == "none":
            yield from _unread(key, method)
        else:
            yield from _method(experiment, key, method)


def _unread(key: str, method: Method) -> Iterator[str]:
    """Keys that mean nothing without a loss: a user who wrote them expects something of them."""
    if method.ce_weight == 0:
        yield f"'{key}' has neither a loss nor a 'ce_weight': there is nothing to learn from."
    for field in sorted(method.model_fields_set - {"loss", "ce_weight", "weight"}):
        if getattr(method, field) != Method(loss="none").__getattribute__(field):
            yield f"'{key}.{field}' is set, but 'loss: none' does not read it. Remove it."


def _method(experiment: Experiment, key: str, method: Method) -> Iterator[str]:
    try:
        loss = loss_info(method.loss)
    except LossError:
        hint = nearest(method.loss, [*available_losses(), "none"])
        yield f"'{key}.loss' names '{method.loss}', which is no loss. {hint}"
        return
    try:
        loss.check_options(method.options)
    except LossError as error:
        yield f"'{key}.options': {error}"
    try:
        loss.check_alignment(method.alignment)
    except LossError as error:
        yield f"'{key}.alignment': {error}"
    if "student_responses" in loss.needs and method.responses.policy != "both":
        yield (
            f"'{key}.responses' gives no text of the student's own, which '{loss.name}' compares "
            "with the teacher's. Set 'responses: {policy: both}'."
        )
    if not loss.needs_teacher and method.responses.policy != "teacher":
        yield (
            f"'{key}.responses' lets the student write text, but '{loss.name}' does not ask the "
            "teacher about it. Remove 'responses', or name a loss that does."
        )
    variant = variant_of(method, experiment.logits)
    if variant not in experiment.logits:
        yield from _undefined(f"{key}.logits", [variant], experiment.logits)
        return
    for finding in store_findings(
        method, loss, experiment.logits[variant], experiment.max_logit_error
    ):
        yield f"'{key}' {finding}"


def _tokenizer_pairs(experiment: Experiment) -> Iterator[str]:
    losses = _known_methods(experiment)
    for name, table in experiment.tables.items():
        if table.skip_inapplicable:
            continue
        for method_name in table.methods or list(experiment.methods):
            if method_name not in losses:
                continue
            for teacher, student in _pairs(experiment, name):
                reason = inapplicable(
                    losses[method_name], experiment.teachers[teacher], experiment.students[student]
                )
                if reason:
                    yield (
                        f"'tables.{name}' pairs teacher '{teacher}' with student '{student}' "
                        f"under '{method_name}', but {reason}"
                    )


def _known_methods(experiment: Experiment) -> dict[str, Method]:
    """Methods whose loss exists; the others are reported by name already."""

    def known(loss: str) -> bool:
        try:
            return bool(loss == "none" or loss_info(loss))
        except LossError:
            return False

    return {name: method for name, method in experiment.methods.items() if known(method.loss)}


def _pairs(experiment: Experiment, table_name: str) -> Iterator[tuple[str, str]]:
    table = experiment.tables[table_name]
    for teacher in table.teachers or list(experiment.teachers):
        for student in table.students or list(experiment.students):
            if teacher in experiment.teachers and student in experiment.students:
                yield teacher, student


def _bertscore(experiment: Experiment) -> Iterator[str]:
    metrics = experiment.evaluation.metrics
    for name, dataset in experiment.datasets.items():
        if dataset.metric not in metrics:
            yield (
                f"'datasets.{name}.metric' is '{dataset.metric}', which 'evaluation.metrics' "
                f"does not compute. Add it there. {nearest(dataset.metric, metrics)}"
            )
    if "bertscore" in metrics and experiment.evaluation.bertscore is None:
        yield "'evaluation.metrics' asks for bertscore, but 'evaluation.bertscore' is missing."


def _claims(experiment: Experiment) -> Iterator[str]:
    for name, claim in experiment.claims.items():
        key = f"claims.{name}"
        if claim.table not in experiment.tables:
            yield from _undefined(f"{key}.table", [claim.table], experiment.tables)
            continue
        table = experiment.tables[claim.table]
        rows = (
            (
                Place(row.dataset, row.teacher, row.student, row.fraction, row.test, row.metric),
                row.method,
            )
            for row in table_rows(experiment, claim.table)
        )
        columns = place_columns(rows, table.baseline, table_methods(experiment, table))
        metrics = {name: dataset.metric for name, dataset in experiment.datasets.items()}
        yield from claim_findings(key, claim, columns, metrics)
        if claim.metric and claim.metric not in experiment.evaluation.metrics:
            known = experiment.evaluation.metrics
            yield from _undefined(f"{key}.metric", [claim.metric], known)
