"""Prompts, one template per task, and the way back from generated text.

The templates serve the micro world and real data alike. A plain prompt ends in "Answer:" or
"Summary:"; the answer follows after a space and ends at the first newline. In a chat the same
texts are the user's turns, in the form of the model's own chat template.
"""

import hashlib
import random
from collections.abc import Callable, Sequence
from pathlib import Path

from kd.data.chat import ChatTemplate, Message
from kd.data.rows import Row
from kd.errors import DataError, nearest
from kd.experiment.models import PromptForm

TITLE = "Title: {title}\n"
TEMPLATES = {
    "qa": "Context: {context}\nQuestion: {question}\nAnswer:",
    "qa_titled": TITLE + "Context: {context}\nQuestion: {question}\nAnswer:",
    "qa_generative": "Story: {context}\nQuestion: {question}\nAnswer:",
    "qa_medical": "Abstract: {context}\nQuestion: {question}\nAnswer:",
    "summary_dialogue": "Dialogue:\n{context}\nSummary:",
}


PLAIN = PromptForm()
WritePrompt = Callable[[Row, Sequence[Row]], str]


def build_prompt(row: Row, shots: Sequence[Row], form: PromptForm = PLAIN) -> str:
    """The examples `shots`, each with its answer, followed by the unanswered `row`.

    Of `form`, instruction and titles count; it is plain text in any case.

    Raises:
        DataError: a row's task is unknown.
    """
    begin = f"{form.system}\n\n" if form.system else ""
    solved = [f"{_question(shot, form)} {_one_line(shot.answers[0])}\n\n" for shot in shots]
    return begin + "".join(solved) + _question(row, form)


def chat_messages(row: Row, shots: Sequence[Row], form: PromptForm) -> list[Message]:
    """The same as turns of a chat: the instruction, then examples, which the model answered."""
    turns: list[Message] = [{"role": "system", "content": form.system}] if form.system else []
    for shot in shots:
        turns.append({"role": "user", "content": _question(shot, form)})
        turns.append({"role": "assistant", "content": _one_line(shot.answers[0])})
    return [*turns, {"role": "user", "content": _question(row, form)}]


def prompt_writer(form: PromptForm, model: Path) -> WritePrompt:
    """How prompts of `form` are written for the model in the folder `model`.

    Its folder is read only for a chat: it holds the template.

    Raises:
        DataError: a chat is asked for, and the model has no template.
    """
    if form.style == "plain":
        return lambda row, shots: build_prompt(row, shots, form)
    template = ChatTemplate.read(model)
    return lambda row, shots: template.render(chat_messages(row, shots, form))


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


def _question(row: Row, form: PromptForm) -> str:
    if row.task not in TEMPLATES:
        raise DataError(
            f"Row '{row.id}' has the unknown task '{row.task}'. " + nearest(row.task, TEMPLATES)
        )
    template = TEMPLATES[row.task]
    if form.title and row.title and not template.startswith(TITLE):
        template = TITLE + template
    return template.format(title=row.title, context=row.context, question=row.question)


def _one_line(answer: str) -> str:
    # A newline would end the answer early.
    return " ".join(answer.split())
