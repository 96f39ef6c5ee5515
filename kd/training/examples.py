"""Training examples: the student's prompt with the teacher's answer, in the student's tokens.

The teacher answered a few-shot prompt; the student learns to give the same answer to the
bare question. Rows without an answer, and rows too long, are left out and counted.
"""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from transformers import PreTrainedTokenizerBase

from kd.data.prompts import build_prompt
from kd.data.rows import Row
from kd.errors import DataError
from kd.models.encoding import encode_prompt
from kd.models.offsets import encode_answer_with_ends
from kd.teacher.answers import Answer


@dataclass(frozen=True)
class Example:
    """One row as the student sees it. `target` holds `answer`, and ends in EOS."""

    id: str
    prompt: list[int]
    target: list[int]
    ends: list[int]  # byte of the answer's text at which each token of `target` ends
    answer: str
    by_student: bool = False  # whether the student wrote the answer, and not its teacher


@dataclass
class ExampleSet:
    """Examples of one split and what was left out of it."""

    examples: list[Example] = field(default_factory=list)
    empty_answer: int = 0
    too_long: int = 0

    def counts(self) -> dict[str, int]:
        """How many rows are used and how many were dropped, by reason."""
        return {
            "rows": len(self.examples),
            "dropped_empty_answer": self.empty_answer,
            "dropped_too_long": self.too_long,
        }


def build_examples(
    rows: Mapping[str, Row],
    answers: Sequence[Answer],
    tokenizer: PreTrainedTokenizerBase,
    *,
    encoder_decoder: bool,
    max_length: int,
    room: int = 0,
) -> ExampleSet:
    """Encode every answered row; `max_length` bounds prompt and target together, in tokens.

    `room` is how many tokens there must be for an answer, however short the teacher's is.

    Raises:
        DataError: an answer belongs to no row, or nothing is left.
    """
    found = ExampleSet()
    for answer in answers:
        if answer.id not in rows:
            raise DataError(
                f"the teacher answered row '{answer.id}', which the dataset does not hold. "
                "Re-run the answer stage."
            )
        if not answer.answer:
            found.empty_answer += 1
            continue
        prompt = encode_prompt(tokenizer, build_prompt(rows[answer.id], []), encoder_decoder)
        target, ends = encode_target(tokenizer, answer.answer)
        if len(prompt) + max(len(target), room) > max_length:
            found.too_long += 1
            continue
        found.examples.append(Example(answer.id, prompt, target, ends, answer.answer))
    if not found.examples:
        raise DataError(
            f"no example is left to train on ({found.empty_answer} empty answers, "
            f"{found.too_long} longer than {max_length} tokens). Raise training.max_length or "
            "look at the teacher's answers."
        )
    return found


def encode_target(tokenizer: PreTrainedTokenizerBase, answer: str) -> tuple[list[int], list[int]]:
    """The answer's tokens and EOS, and the byte of its text at which each of them ends."""
    ids, ends = encode_answer_with_ends(tokenizer, answer)
    return [*ids, tokenizer.eos_token_id], [*ends, max(ends, default=0)]


def subset(answers: Sequence[Answer], percent: int, seed: int) -> list[Answer]:
    """`percent` % of `answers`, drawn by seed; smaller shares are contained in larger ones.

    Answers keep their order, so that 100 % is the list itself.
    """
    keep = max(1, round(len(answers) * percent / 100))
    order = list(range(len(answers)))
    random.Random(f"subset-{seed}").shuffle(order)
    return [answers[index] for index in sorted(order[:keep])]


def one_part(answers: list[Answer], parts: int, seed: int) -> list[Answer]:
    """One of so many equal parts of `answers`, drawn by seed: what one of several replicas reads.

    In the paper's code (llm-recipes, data/sampler.py) replica 0 reads every `parts`-th batch of a
    shuffle that is the same in every epoch. Answers keep their order.
    """
    if parts == 1:
        return answers
    order = list(range(len(answers)))
    random.Random(f"replica-{seed}").shuffle(order)
    return [answers[index] for index in sorted(order[: max(1, len(answers) // parts)])]
