"""Test rows must be unseen: in what was learned from, and in what a checkpoint was chosen by."""

import json
import re
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path

from kd.audit.chain import Artifact
from kd.audit.findings import Finding
from kd.audit.notes import Voice, counted, some
from kd.audit.scope import Scope
from kd.data.rows import Row, read_rows
from kd.errors import KdError

NGRAM = 13  # words; as in the contamination studies of GPT-3 (Brown et al. 2020, appendix C)
SHARED_AT_MOST = 0.1  # of the test rows may share such a run of words with a training row
SAME_FAILS = 0.05  # of the test rows; public datasets hold a few duplicates of their own

_USES = {"train": "learned from", "validation": "chose its checkpoint by"}
_WORD = re.compile(r"\w+")


def leakage(voice: Voice) -> Iterator[Finding]:
    """Whether test rows stand in the splits that models learn from, of whatever dataset."""
    clean = []
    data = voice.scope.of_stage("data")
    read = cache(lambda dataset, split: _read(voice.scope.results / "data" / dataset, split))
    tested = _tested_on(voice.scope)
    for artifact in data:
        dataset = _dataset(artifact)
        try:
            test = read(dataset, "test")
            learners = sorted(name for name, tests in tested.items() if dataset in tests)
            learned = [row for name in learners for row in read(name, "train")]
            # One text makes all pretrained models.
            learned += [row for one in data for row in read(_dataset(one), "pretraining")]
        except KdError as error:
            yield _unreadable(voice, "leakage", artifact, error)
            continue
        same = _same_rows(test, learned)
        if same:
            yield voice.about(
                "fail" if len(same) > SAME_FAILS * len(test) else "warn",
                "leakage",
                artifact,
                f"{counted(len(same), 'test row')} of {len(test)} stand in the rows that models "
                f"learn from: {some(same)}",
                f"kd check {voice.scope.results.name}",
                rows=list(same),
            )
            continue
        if artifact.spec.get("dataset", {}).get("source") != "micro":
            # Generated rows share the wording of their templates, and nothing else.
            yield from _near(voice, artifact, test, learned)
        clean.append(f"{dataset} ({len(test)} test rows)")
    if clean:
        yield voice.passed("leakage", f"no test row among the rows that are learned: {some(clean)}")


def _tested_on(scope: Scope) -> dict[str, set[str]]:
    """For each dataset, those whose test rows its students answer, its own among them."""
    found = {_dataset(artifact): {_dataset(artifact)} for artifact in scope.of_stage("data")}
    for one in scope.evaluations:
        if one.run is not None:
            found.setdefault(one.run.dataset, {one.run.dataset}).add(one.dataset)
    return found


def _dataset(artifact: Artifact) -> str:
    return artifact.folder.rpartition("/")[2]


def _near(
    voice: Voice, artifact: Artifact, test: Sequence[Row], learned: Sequence[Row]
) -> Iterator[Finding]:
    """Contexts that are shared, and long runs of words that are."""
    contexts = {_plain(row.context) for row in learned}
    shared = [row.id for row in test if _plain(row.context) in contexts]
    if shared:
        yield voice.about(
            "warn",
            "leakage",
            artifact,
            f"{counted(len(shared), 'test row')} of {len(test)} ask about a context that is "
            f"learned from, too: {some(shared)}",
            "",
        )
    known = {run for row in learned for run in _runs(row)}
    alike = sum(bool(known & set(_runs(row))) for row in test)
    if alike > SHARED_AT_MOST * len(test):
        yield voice.about(
            "warn",
            "leakage",
            artifact,
            f"{alike} of {len(test)} test rows share {NGRAM} words in a row with one that is "
            "learned from",
            "",
            share=alike / len(test),
        )


def selection(voice: Voice) -> Iterator[Finding]:
    """Whether a checkpoint was chosen by rows of the test split, or not by validation at all."""
    sound = 0
    data = voice.scope.results / "data"
    tested = _tested_on(voice.scope)
    shared = cache(lambda name: _validation_in_test(data, name, tested.get(name, {name})))
    for artifact in voice.scope.of_stage("distill"):
        problem = (
            _other_split(voice, artifact)
            or _validation_is_test(shared(str(artifact.spec.get("dataset"))))
            or _not_the_best(voice.scope.results, artifact)
        )
        sound += problem is None
        if problem:
            yield voice.about("fail", "selection", artifact, problem)
    if sound:
        count = counted(sound, "student")
        yield voice.passed(
            "selection", f"{count} chosen on validation rows, none of them a test row"
        )


def _other_split(voice: Voice, artifact: Artifact) -> str | None:
    """Whether rows of one split were read as those of another."""
    for source in voice.scope.chain.sources(artifact):
        split = Path(source.path).stem
        if source.role in _USES and source.writer is not None and split != source.role:
            return f"it {_USES[source.role]} the {split} split: it read {source.path}"
    return None


def _validation_is_test(same: list[str]) -> str | None:
    if not same:
        return None
    return (
        f"its checkpoint was chosen by test rows: {counted(len(same), 'validation row')} stand in "
        f"the test split: {some(same)}"
    )


def _validation_in_test(data: Path, dataset: str, tested: set[str]) -> list[str]:
    """Ids of validation rows of a dataset that its students are tested with, on any dataset."""
    try:
        test = [row for name in sorted(tested) for row in _read(data / name, "test")]
        return _same_rows(_read(data / dataset, "validation"), test)
    except KdError:
        return []


def _not_the_best(results: Path, artifact: Artifact) -> str | None:
    """Whether the selected step is not the one with the least validation loss of the curve."""
    selected = artifact.notes.get("selected")
    if artifact.spec.get("training", {}).get("select") != "validation_loss" or not selected:
        return None
    try:
        text = (results / artifact.folder / "train.jsonl").read_text(encoding="utf-8")
        records = [json.loads(line) for line in text.splitlines()]
        validated = [record for record in records if "validation_loss" in record]
        best = min(validated, key=lambda record: record["validation_loss"])
    except (OSError, ValueError, TypeError):
        return None  # integrity, or the check of curves, says why
    if best["step"] == selected.get("step"):
        return None
    return (
        f"it was taken from step {selected.get('step')}, but its validation loss is least at step "
        f"{best['step']}"
    )


def _read(folder: Path, split: str) -> list[Row]:
    path = folder / f"{split}.parquet"
    if split == "pretraining" and not path.is_file():
        return []
    return read_rows(path)


def _same_rows(rows: Sequence[Row], others: Sequence[Row]) -> list[str]:
    """Ids of `rows` whose context and question stand in `others`, whatever their ids."""
    known = {_question(row) for row in others}
    return [row.id for row in rows if _question(row) in known]


def _question(row: Row) -> tuple[str, str]:
    return _plain(row.context), _plain(row.question)


def _plain(text: str) -> str:
    return " ".join(_WORD.findall(text.lower()))


def _runs(row: Row) -> Iterator[tuple[str, ...]]:
    words = _WORD.findall(row.context.lower())
    return (tuple(words[at : at + NGRAM]) for at in range(len(words) - NGRAM + 1))


def _unreadable(voice: Voice, rule: str, artifact: Artifact, error: KdError) -> Finding:
    reason = str(error).replace(f"{voice.scope.results}/", "")
    return voice.about("not applicable", rule, artifact, reason)
