"""E. Consistency: cells that are compared were made alike."""

import hashlib
from collections.abc import Callable, Iterator
from functools import cache
from itertools import chain as joined
from pathlib import Path
from typing import Any

from kd.audit.chain import Artifact
from kd.audit.findings import Finding, Status
from kd.audit.notes import CONSISTENCY, Voice, counted, short, some
from kd.audit.outside import find_outside
from kd.audit.scope import Evaluation, Scope
from kd.data.fitting import Shortened, shortening_noted
from kd.data.prompts import choose_shots, prompt_writer
from kd.data.rows import Row, read_rows
from kd.errors import KdError
from kd.evaluation.predictions import Prediction, read_predictions
from kd.experiment.models import PromptForm

_HARDWARE = ("device", "gpu", "machine", "cpu_capability", "threads", "deterministic")


def check(scope: Scope) -> list[Finding]:
    """Versions, hardware, code, prompts and rows, over all cells."""
    voice = Voice(CONSISTENCY, scope)
    rules = (_versions, _hardware, _code, _rows)
    return list(joined.from_iterable(rule(voice) for rule in rules))


def _versions(voice: Voice) -> Iterator[Finding]:
    def versions(artifact: Artifact) -> dict[str, Any]:
        found = artifact.numerics.get("packages")
        packages = found if isinstance(found, dict) else {}
        return {"python": artifact.numerics.get("python")} | packages

    yield from _alike(voice, "fail", "versions", versions, "one version of everything that counts")


def _hardware(voice: Voice) -> Iterator[Finding]:
    def hardware(artifact: Artifact) -> dict[str, Any]:
        return {name: artifact.numerics.get(name) for name in _HARDWARE}

    yield from _alike(voice, "warn", "hardware", hardware, "one kind of machine")


def _alike(
    voice: Voice,
    status: Status,
    rule: str,
    values_of: Callable[[Artifact], dict[str, Any]],
    good: str,
) -> Iterator[Finding]:
    """Every value must be the same in all artifacts of a stage."""
    mixed = 0
    stages = dict.fromkeys(artifact.stage for artifact in voice.scope.artifacts)
    for stage in stages:
        made = [artifact for artifact in voice.scope.of_stage(stage) if artifact.content]
        values = {artifact.key: values_of(artifact) for artifact in made}
        for name in dict.fromkeys(key for found in values.values() for key in found):
            groups: dict[str, list[Artifact]] = {}
            for artifact in made:
                groups.setdefault(str(values[artifact.key].get(name)), []).append(artifact)
            if len(groups) > 1:
                mixed += 1
                yield _mixed(voice, status, rule, f"{name} of stage '{stage}'", groups)
    if not mixed:
        yield voice.passed(rule, f"{good}, in all artifacts of each stage")


def _mixed(
    voice: Voice, status: Status, rule: str, what: str, groups: dict[str, list[Artifact]]
) -> Finding:
    """A finding that names the artifacts which are not like most."""
    ordered = sorted(groups.items(), key=lambda item: -len(item[1]))
    odd = [artifact for _, artifacts in ordered[1:] for artifact in artifacts]
    values = ", ".join(f"{short(value)} ({len(artifacts)})" for value, artifacts in ordered)
    return voice.say(
        status,
        rule,
        some([artifact.key for artifact in odd]),
        f"{what} differs between cells that are compared: {values}",
        artifacts=odd,
        then=" && ".join(voice.remake(artifact) for artifact in odd[:1]),
    )


def _code(voice: Voice) -> Iterator[Finding]:
    """One digest of code per stage; distillations differ by their loss and are told apart."""
    groups: dict[str, dict[str, list[Artifact]]] = {}
    for artifact in voice.scope.artifacts:
        if artifact.content:
            loss = (
                artifact.spec.get("method", {}).get("loss") if artifact.stage == "distill" else ""
            )
            what = f"code of stage '{artifact.stage}'" + (f" with loss '{loss}'" if loss else "")
            by_digest = groups.setdefault(what, {})
            by_digest.setdefault(str(artifact.hashed.get("code")), []).append(artifact)
    mixed = {what: digests for what, digests in groups.items() if len(digests) > 1}
    for what, digests in mixed.items():
        yield _mixed(voice, "fail", "code", what, digests)
    if not mixed:
        yield voice.passed("code", f"one digest of code for each of {len(groups)} kinds of stage")


def _rows(voice: Voice) -> Iterator[Finding]:
    """Every evaluation answers the test rows, all of them, under the prompts that they give."""
    prompts = _Prompts(voice.scope)
    sound = 0
    for evaluation in voice.scope.evaluations:
        try:
            rows = prompts.rows(evaluation.dataset)
            predictions = read_predictions(
                voice.scope.results / evaluation.place / "predictions.parquet"
            )
            problem = _rows_problem(rows, predictions) or _prompt_problem(
                prompts.hashes(evaluation), predictions
            )
        except (KdError, KeyError) as error:
            reason = str(error).replace(f"{voice.scope.results}/", "")
            yield voice.about("not applicable", "rows", evaluation.predict, reason)
            continue
        sound += problem is None
        if problem:
            yield voice.about("fail", "rows", evaluation.predict, problem)
    if sound:
        count = counted(sound, "evaluation")
        yield voice.passed("rows", f"{count} of all test rows, with their references and prompts")


def _rows_problem(rows: list[Row], predictions: list[Prediction]) -> str | None:
    wanted, there = [row.id for row in rows], [prediction.id for prediction in predictions]
    if wanted != there:
        lacking, extra = set(wanted) - set(there), set(there) - set(wanted)
        if lacking or extra:
            return (
                f"it answers {len(there)} of {len(wanted)} test rows: lacks {some(sorted(lacking))}"
                if lacking
                else f"it answers rows that are no test rows: {some(sorted(extra))}"
            )
        return "it answers the test rows in another order, or twice"
    for row, prediction in zip(rows, predictions, strict=True):
        if list(row.answers) != list(prediction.references):
            return f"its references of row '{row.id}' are not those of the test row"
    return None


def _prompt_problem(hashes: list[str], predictions: list[Prediction]) -> str | None:
    other = [
        prediction.id
        for sha256, prediction in zip(hashes, predictions, strict=True)
        if sha256 != prediction.prompt_sha256
    ]
    if not other:
        return None
    return (
        f"{counted(len(other), 'prompt')} other than its specification gives (first: row "
        f"'{other[0]}')"
    )


class _Prompts:
    """Test rows, and the hashes of the prompts that a specification makes of them."""

    def __init__(self, scope: Scope) -> None:
        self._scope = scope
        self._data = scope.results / "data"
        self.rows = cache(lambda dataset: read_rows(self._file(dataset, "test")))
        self._train = cache(lambda dataset: read_rows(self._file(dataset, "train")))
        self._hashes = cache(self._make)

    def _file(self, dataset: str, split: str) -> Path:
        return self._data / dataset / f"{split}.parquet"

    def hashes(self, evaluation: Evaluation) -> list[str]:
        """SHA-256 of each prompt, in the order of the test rows."""
        spec = evaluation.predict.spec
        form = PromptForm.model_validate(spec.get("prompt", {}))
        model = self._model(evaluation.predict) if form.style == "chat" else Path()
        # Of prompts that were too long, the manifest says what is left.
        shortened = tuple(shortening_noted(evaluation.predict.notes).items())
        drawn = int(spec["shots"]), int(spec["seed"])
        return self._hashes(evaluation.dataset, drawn, form, model, shortened)

    def _make(
        self,
        dataset: str,
        drawn: tuple[int, int],
        form: PromptForm,
        model: Path,
        shortened: tuple[tuple[str, Shortened], ...],
    ) -> list[str]:
        shots, seed = drawn
        shown = choose_shots(self._train(dataset), shots, seed) if shots else []
        write = prompt_writer(form, model)
        kept, whole = dict(shortened), Shortened(shots=len(shown))
        rows = self.rows(dataset)
        return [_sha256(kept.get(row.id, whole).write(row, shown, write)) for row in rows]

    def _model(self, predict: Artifact) -> Path:
        """The folder of the model that answered: it holds the template of a chat."""
        for source in self._scope.chain.sources(predict):
            if source.role == "model" and source.writer is not None:
                return self._scope.results / source.path
            if source.role == "model":
                return find_outside(self._scope, source.path) or Path(source.path)
        raise KeyError("model")


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
