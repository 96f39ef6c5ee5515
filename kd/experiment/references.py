"""Names that an experiment uses and must define, and pairs that cannot work together.

All findings are collected: a user mends a file once, not once per error.
"""

from collections.abc import Iterable, Iterator

from kd.errors import LossError, nearest
from kd.experiment.models import MicroModel, Model
from kd.experiment.schema import Experiment
from kd.losses.catalogue import available_losses


def check_references(experiment: Experiment) -> list[str]:
    """Return one sentence per undefined name or impossible pair, in a fixed order."""
    return [
        *_table_names(experiment),
        *_shots(experiment),
        *_losses(experiment),
        *_tokenizer_pairs(experiment),
        *_bertscore(experiment),
    ]


def _undefined(key: str, names: Iterable[str], known: Iterable[str]) -> Iterator[str]:
    known = list(known)
    for name in names:
        if name not in known:
            yield f"'{key}' names '{name}', which is not defined. {nearest(name, known)}"


def _table_names(experiment: Experiment) -> Iterator[str]:
    for name, table in experiment.tables.items():
        key = f"tables.{name}"
        yield from _undefined(f"{key}.datasets", table.datasets, experiment.datasets)
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


def _losses(experiment: Experiment) -> Iterator[str]:
    losses = available_losses()
    logits = experiment.logits
    for name, method in experiment.methods.items():
        key = f"methods.{name}"
        if method.loss == "none":
            continue
        if method.loss not in losses:
            hint = nearest(method.loss, [*losses, "none"])
            yield f"'{key}.loss' names '{method.loss}', which is no loss. {hint}"
            continue
        try:
            losses[method.loss].check_options(method.options)
        except LossError as error:
            yield f"'{key}.options': {error}"
        if method.temperature != 1.0 and (logits.epsilon > 0 or logits.cap is not None):
            yield (
                f"'{key}.temperature' is {method.temperature}, but the stored logits are "
                "truncated, so their tail cannot be tempered. Set 'logits: {epsilon: 0.0}'."
            )


def same_tokenizer(first: Model, second: Model) -> bool:
    """Whether two models declare the same tokenizer, as far as the file can tell."""
    if isinstance(first, MicroModel) and isinstance(second, MicroModel):
        corpus = first.pretraining.rows == second.pretraining.rows
        return corpus and first.tokenizer == second.tokenizer
    return True  # files decide; the distillation stage compares the tokenizers themselves


def _tokenizer_pairs(experiment: Experiment) -> Iterator[str]:
    losses = available_losses()
    for name, table in experiment.tables.items():
        for method_name in table.methods or list(experiment.methods):
            method = experiment.methods.get(method_name)
            loss = losses.get(method.loss) if method else None
            if loss is None or not loss.same_vocabulary:
                continue
            across = ", ".join(
                key
                for key, info in losses.items()
                if info.needs_teacher and not info.same_vocabulary
            )
            for teacher, student in _pairs(experiment, name):
                if not same_tokenizer(experiment.teachers[teacher], experiment.students[student]):
                    yield (
                        f"'tables.{name}' pairs teacher '{teacher}' with student '{student}' "
                        f"under '{method_name}', but '{loss.name}' needs one shared tokenizer. "
                        f"Losses that work across tokenizers: {across}."
                    )


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
