"""Universal Logit Distillation (arXiv 2402.12030): github.com/Nicolas-BZRD/llm-distillation.

Layout, below `benchmark/results`, each score file beside its `predictions_Nshots.json`:

    STUDENT/DATASET/TEACHER/d0/STEP/Nshots.json       distilled; d0: on the teacher's text alone
    STUDENT/DATASET/TEACHER/d1.5_0.25/STEP/…          weight 1.5 of ULD, a quarter of the data
    original/MODEL/DATASET/titled/Nshots.json         not distilled: teachers, native students

Some files hold percent rounded to two decimals, others fractions. The scoring is that of
`benchmark/score.py` and `benchmark/benchmark.py` (the last version before the archive's head);
docs/protocol.md says what is wrong with it.
"""

import re
from array import array
from collections import Counter
from collections.abc import Mapping, Sequence
from math import nan
from pathlib import PurePosixPath
from statistics import fmean
from typing import Any, ClassVar

from kd.audit.published.protocol import (
    BertScore,
    MalformedError,
    Protocol,
    Published,
    Row,
    Rule,
    Run,
    Scored,
)
from kd.audit.published.reading import json_lines, json_object, usable_numbers
from kd.audit.published.rouge import rouge
from kd.evaluation.overlap import Overlap, normalise, token_overlap

_SCORES = re.compile(r"(\d+)shots\.json")
_ARM = re.compile(r"d(\d+(?:\.\d+)?)(?:_(\d+(?:\.\d+)?))?")
_OVERLAPS = ("f1", "precision", "recall", "em", "squad")
_ROUGES = ("rouge1", "rouge2", "rougeL", "rougeLsum")
_PER_ROW = ("f1", "precision", "recall", "em", *_ROUGES)
_BERT = ("f1_bert", "precision_bert", "recall_bert")
_TWICE = "a prediction with 'no response' counts twice in em, once as right"
# BERTScore's rescaling baseline for roberta-large, layer 17 (bert_score 0.3.13): an empty
# candidate has raw score 0 and so -baseline / (1 - baseline) after rescaling.
_BASELINE = {"f1_bert": 0.83122575, "precision_bert": 0.83150584, "recall_bert": 0.8314941}
# In percentage points: rounded or cut numbers in one inequality, and the error of a bootstrap.
_ROUNDING, _BOOTSTRAP = 0.0101, 0.5


def _same_rule(names: Sequence[str], rule: Rule) -> dict[str, Rule]:
    return dict.fromkeys(names, rule)


class Uld(Protocol):
    """Layout and scoring of the ULD authors."""

    layout = "STUDENT/DATASET/TEACHER/dWEIGHT/STEP/Nshots.json"
    rules: ClassVar[Mapping[str, Rule]] = (
        _same_rule(_OVERLAPS, "exact")
        | _same_rule(_ROUGES, "bootstrap")
        | _same_rule(_BERT, "encoder")
    )
    baseline = "teacher text"
    compared = ("f1", "rougeLsum")
    bertscore = BertScore("f1_bert", layer=17, rescale=True)
    empty_candidate = {name: -100 * base / (1 - base) for name, base in _BASELINE.items()}

    def run(self, path: PurePosixPath) -> Run | None:
        """See `Protocol.run`."""
        shots = _SCORES.fullmatch(path.name)
        if shots is None:
            return None
        *_, arm, step = ("", "", *path.parts[:-1])
        weight = _ARM.fullmatch(arm)
        predictions = path.with_name(f"predictions_{path.name}")
        settings = {"shots": shots[1]}
        if weight and step.isdecimal() and len(path.parts) >= 6:
            student, dataset, teacher = path.parts[-6:-3]
            settings |= {"checkpoint": step}
            method = {"0": "teacher text", "1.5": "ULD"}.get(weight[1], f"ULD {weight[1]}")
            return Run(
                path, predictions, dataset, student, method, teacher, weight[2] or "", settings
            )
        if step in ("titled", "untitled") and len(path.parts) >= 4:
            model, dataset = path.parts[-4:-2]
            settings |= {"title": str(step == "titled")}
            return Run(path, predictions, dataset, model, "few-shot", settings=settings)
        raise MalformedError(f"lies neither in {self.layout} nor in MODEL/DATASET/titled/")

    def is_predictions(self, path: PurePosixPath) -> bool:
        """See `Protocol.is_predictions`."""
        prefix, _, rest = path.name.partition("_")
        return prefix == "predictions" and _SCORES.fullmatch(rest) is not None

    def published(self, text: str) -> Published:
        """See `Protocol.published`."""
        content = json_object(text)
        values, problems = usable_numbers(content, (*_OVERLAPS, *_ROUGES))
        extra, more = usable_numbers(content, (name for name in _BERT if name in content))
        rows = content.get("samples_number")
        if rows is not None and (isinstance(rows, bool) or not isinstance(rows, int)):
            more.append(f"'samples_number' is {str(rows)[:20]!r}, not a whole number")
            rows = None
        return Published(values | extra, rows, _declared(content), (*problems, *more))

    def rows(self, text: str) -> list[Row]:
        """See `Protocol.rows`."""
        return [_row(where, record) for where, record in json_lines(text)]

    def score(self, rows: Sequence[Row]) -> Scored:
        """See `Protocol.score`; docs/protocol.md, 'Scoring', lists the differences."""
        quirks: Counter[str] = Counter()
        scored = [_score_row(row, quirks) for row in rows]
        per_row = {
            name: array("d", [100 * authors[name] for authors, _ in scored]) for name in _PER_ROW
        }
        authors = {name: fmean(values) for name, values in per_row.items()}
        extra = quirks[_TWICE]
        authors["em"] = (sum(per_row["em"]) + 100 * extra) / (len(rows) + extra)
        correct = {name: 100 * fmean(row[name] for _, row in scored) for name in _PER_ROW}
        for means in (authors, correct):
            means["squad"] = (means["f1"] + means["em"]) / 2
        return Scored(authors, correct, per_row, dict(quirks))

    def inconsistencies(self, values: Mapping[str, float]) -> list[str]:
        """Range, `squad` as the mean of F1 and exact match, and bounds that hold for each row."""
        value = dict.fromkeys(self.rules, nan) | dict(values)  # NaN fails no comparison
        found = [
            f"{name} is {number:.2f}, outside 0 to 100"
            for name, number in values.items()
            if number > 100 + _ROUNDING or (number < 0 and name not in _BERT)
        ]
        if abs(value["squad"] - (value["f1"] + value["em"]) / 2) > _ROUNDING:
            found.append("squad is not the mean of f1 and em")
        if value["f1"] > (value["precision"] + value["recall"]) / 2 + _ROUNDING:
            found.append("f1 is above the mean of precision and recall")
        if value["rougeL"] > value["rouge1"] + _BOOTSTRAP:
            found.append("rougeL is above rouge1")
        return found


def _declared(content: Mapping[str, Any]) -> dict[str, str]:
    """Facts that the file repeats, under the names that `Uld.run` gives them."""
    declared: dict[str, str] = {}
    if isinstance(dataset := content.get("dataset"), str):
        declared["dataset"] = PurePosixPath(dataset).name
    if "number_few_shot" in content:
        declared["shots"] = str(content["number_few_shot"])
    if not isinstance(model := content.get("model"), str):
        return declared
    parts = PurePosixPath(model).parts
    if len(parts) > 5 and _ARM.fullmatch(parts[-2]):
        teacher, student, trained, _, step = parts[-5:]
        declared |= {"teacher": teacher, "model": student, "checkpoint": step}
        if trained != declared.setdefault("dataset", trained):
            declared["dataset"] += f"' with a model for '{trained}"
    elif parts:
        declared |= {"model": parts[-1], "title": str(content.get("title"))}
    return declared


def _row(where: str, record: Mapping[str, Any]) -> Row:
    prediction, answers = record.get("prediction_text"), record.get("answers")
    if not isinstance(prediction, str):
        raise MalformedError(f"{where}: 'prediction_text' is missing or no text")
    if isinstance(answers, dict):  # SQuAD
        answers = answers.get("text")
    if isinstance(answers, str):
        return Row(prediction, (answers,), (answers,))
    if not isinstance(answers, list):
        raise MalformedError(f"{where}: 'answers' is missing or of no known shape")
    texts = [answer.get("string") if isinstance(answer, dict) else answer for answer in answers]
    references = tuple(text for text in texts if isinstance(text, str))
    if len(references) < len(answers):
        raise MalformedError(f"{where}: an answer is no text")
    if answers and isinstance(answers[0], dict):
        # QED: spans of one annotator, the parts of one answer; the authors keep the first alone.
        return Row(prediction, references[:1], (" ".join(references),))
    return Row(prediction, references, references)


def _score_row(row: Row, quirks: Counter[str]) -> tuple[dict[str, float], dict[str, float]]:
    """Scores between 0 and 1 by the authors' scoring and by sound scoring."""
    prediction = normalise(row.prediction)
    if "no response" in prediction:
        quirks[_TWICE] += 1
    same = row.complete == row.references
    overlaps, matches, rouges = _against(row.references, row.prediction, prediction)
    theirs = _authors_overlap(prediction, overlaps)
    authors = theirs._asdict() | matches | rouges
    if not same:
        quirks["only the first of several spans is a reference"] += 1
        overlaps, matches, rouges = _against(row.complete, row.prediction, prediction)
    ours = max(overlaps, default=Overlap(0.0, 0.0, 0.0))
    if ours.f1 > 0 and not prediction:
        quirks["an empty prediction of an empty reference scores 0"] += 1
    elif same and ours != theirs:
        quirks["precision or recall is from another reference than F1"] += 1
    return authors, ours._asdict() | matches | rouges


def _against(
    references: Sequence[str], text: str, normalised: str
) -> tuple[list[Overlap], dict[str, float], dict[str, float]]:
    """Overlap with each distinct reference; exact match and ROUGE with the best of them."""
    distinct = list(dict.fromkeys(references))
    overlaps = [token_overlap(text, reference) for reference in distinct]
    likely = (r for r, found in zip(distinct, overlaps, strict=True) if found.f1 == 1)
    matches = float(normalised in map(normalise, likely))
    return overlaps, {"em": matches}, rouge(text, distinct)._asdict()


def _authors_overlap(prediction: str, overlaps: Sequence[Overlap]) -> Overlap:
    """Three separate maxima; nothing in common is 0, even of two texts that are both empty."""
    if not overlaps:  # nothing to find; their script looks for 'no response'
        found = float(not prediction or "no response" in prediction)
        return Overlap(found, found, found)
    if not prediction:
        return Overlap(0.0, 0.0, 0.0)
    return Overlap(*map(max, zip(*overlaps, strict=True)))


PROTOCOL = Uld()
