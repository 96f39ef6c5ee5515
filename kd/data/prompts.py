"""Plain-text prompts, one template per task, and the way back from generated text.

The templates serve the micro world and real data alike. A prompt ends in "Answer:" or
"Summary:"; the answer follows after a space and ends at the first newline.
"""

import hashlib
import random
from collections.abc import Sequence

from kd.data.rows import Row
from kd.errors import DataError, nearest

TEMPLATES = {
    "qa": "Context: {context}\nQuestion: {question}\nAnswer:",
    "qa_titled": "Title: {title}\nContext: {context}\nQuestion: {question}\nAnswer:",
    "qa_generative": "Story: {context}\nQuestion: {question}\nAnswer:",
    "qa_medical": "Abstract: {context}\nQuestion: {question}\nAnswer:",
    "summary_dialogue": "Dialogue:\n{context}\nSummary:",
}


def build_prompt(row: Row, shots: Sequence[Row]) -> str:
    """The examples `shots`, each with its answer, followed by the unanswered `row`.

    Raises:
        DataError: a row's task is unknown.
    """
    solved = [f"{_question(shot)} {_one_line(shot.answers[0])}\n\n" for shot in shots]
    return "".join(solved) + _question(row)


def follow_up(row: Row) -> str:
    """The prompt of `row` for a reader who has its context before them: the question alone."""
    template = TEMPLATES[row.task]
    start = template.find("Question:")
    return template[start:].format(question=row.question) if start >= 0 else ""


def answer_text(generated: str) -> str:
    """The answer in `generated`: its text up to the first newline, stripped.

    A newline that comes before any text does not end the answer.
    """
    return generated.lstrip().split("\n", 1)[0].strip()


def choose_shots(rows: Sequence[Row], count: int, seed: int) -> list[Row]:
    """Draw `count` examples from the training rows: the same ones for all prompts.

    The draw depends on the rows' ids and on `seed`, not on the rows' order.

    Raises:
        DataError: fewer than `count` rows.
    """
    if count > len(rows):
        raise DataError(
            f"{count} few-shot examples were asked for, but the training split has only "
            f"{len(rows)} rows. Lower 'shots' or enlarge the split."
        )
    by_id = sorted(rows, key=lambda row: row.id)
    digest = hashlib.sha256(f"shots/{seed}".encode()).digest()
    return random.Random(int.from_bytes(digest[:8], "big")).sample(by_id, count)


def _question(row: Row) -> str:
    if row.task not in TEMPLATES:
        raise DataError(
            f"Row '{row.id}' has the unknown task '{row.task}'. " + nearest(row.task, TEMPLATES)
        )
    return TEMPLATES[row.task].format(title=row.title, context=row.context, question=row.question)


def _one_line(answer: str) -> str:
    # A newline would end the answer early.
    return " ".join(answer.split())
