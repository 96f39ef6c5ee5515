"""Files as the authors of datasets publish them, where a record is no row.

SQuAD: one JSON file of articles, paragraphs and questions (rajpurkar/SQuAD-explorer).
PubMedQA: one JSON file of entries by PubMed's number (pubmedqa/pubmedqa).
FairytaleQA: a folder of tables, two a story, below one folder a split (uci-soe/FairytaleQAData).
QED and DialogSum have a row a line, and need nothing but a map of fields.
"""

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from kd.errors import DataError

_SPLIT_FOLDERS = {"train": "train", "validation": "val", "test": "test"}


def squad(path: Path, split: str) -> list[dict[str, Any]]:
    """A record a question: id, title, context, question, answers (texts)."""
    content = _json(path)
    try:
        return [
            {
                "id": question["id"],
                "title": article["title"].replace("_", " "),
                "context": paragraph["context"],
                "question": question["question"],
                "answers": [answer["text"] for answer in question["answers"]],
            }
            for article in content["data"]
            for paragraph in article["paragraphs"]
            for question in paragraph["qas"]
        ]
    except (KeyError, TypeError) as error:
        raise DataError(f"{path}: not a file of SQuAD ({error} is missing).") from None


def pubmedqa(path: Path, split: str) -> list[dict[str, Any]]:
    """A record an entry, with its number as `id`; fields as there (QUESTION, CONTEXTS, …)."""
    content = _json(path)
    if not isinstance(content, dict):
        raise DataError(f"{path}: not a file of PubMedQA, which holds entries by number.")
    return [{"id": number} | entry for number, entry in content.items()]


def fairytaleqa(path: Path, split: str) -> list[dict[str, Any]]:
    """A record a question: id, title, context (the sections it is about), question, answers."""
    name = _SPLIT_FOLDERS[split]
    tables = sorted((path / "questions" / name).glob("*-questions.csv"))
    if not tables:
        raise DataError(
            f"{path}: no folder of FairytaleQA: questions/{name}/*-questions.csv is wanted."
        )
    return [record for table in tables for record in _story(path, name, table)]


def _story(path: Path, split: str, table: Path) -> list[dict[str, Any]]:
    story = table.name.removesuffix("-questions.csv")
    text = path / "section-stories" / split / f"{story}-story.csv"
    if not text.is_file():
        raise DataError(f"{text}: missing; {table.name} asks about it.")
    sections = {row["section"]: " ".join(row["text"].split()) for row in _csv(text)}
    records = []
    for row in _csv(table):
        wanted = [number.strip() for number in row["cor_section"].split(",")]
        if not all(number in sections for number in wanted):
            raise DataError(f"{table}: question {row['question_id']} names a section not there.")
        records.append(
            {
                "id": f"{story}-{row['question_id']}",
                "title": story.replace("-", " "),
                "context": " ".join(sections[number] for number in wanted),
                "question": row["question"],
                "answers": [
                    answer
                    for number in range(1, 7)
                    if (answer := (row.get(f"answer{number}") or "").strip())
                ],
            }
        )
    return records


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read as JSON ({error}).") from None


def _csv(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        return list(csv.DictReader(file))


LAYOUTS: dict[str, Callable[[Path, str], list[dict[str, Any]]]] = {
    "squad": squad,
    "pubmedqa": pubmedqa,
    "fairytaleqa": fairytaleqa,
}
