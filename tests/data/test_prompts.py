"""Prompts: one template per task, few-shot examples, and the way back from generated text."""

import pytest

from kd.data.prompts import TEMPLATES, answer_text, build_prompt, choose_shots, follow_up
from kd.data.rows import Row
from kd.errors import DataError


def row(name: str, task: str = "qa", answer: str = "Oslo") -> Row:
    return Row(
        id=name,
        task=task,
        title="T",
        context=f"about {name}",
        question=f"{name}?",
        answers=[answer],
    )


@pytest.mark.parametrize("task", sorted(TEMPLATES))
def test_a_prompt_holds_its_context_and_ends_where_the_answer_begins(task):
    prompt = build_prompt(row("a", task), [])
    assert "about a" in prompt
    assert prompt.endswith("Summary:" if task == "summary_dialogue" else "Answer:")
    assert ("a?" in prompt) == (task != "summary_dialogue")
    assert ("Title: T" in prompt) == (task == "qa_titled")


def test_examples_come_solved_and_first_with_answers_that_end_at_a_newline():
    prompt = build_prompt(row("a"), [row("b", answer="in\n Rome"), row("c")])
    assert prompt == (
        "Context: about b\nQuestion: b?\nAnswer: in Rome\n\n"
        "Context: about c\nQuestion: c?\nAnswer: Oslo\n\n"
        "Context: about a\nQuestion: a?\nAnswer:"
    )


def test_an_unknown_task_is_refused_with_the_row_and_the_nearest_task():
    with pytest.raises(DataError, match=r"'a'.*'qa_tittled'.*'qa_titled'"):
        build_prompt(row("a", "qa_tittled"), [])


@pytest.mark.parametrize("task", sorted(set(TEMPLATES) - {"summary_dialogue"}))
def test_a_follow_up_is_the_prompt_after_its_context(task):
    prompt = build_prompt(row("a", task), [])
    assert prompt == prompt.split("Question:")[0] + follow_up(row("a", task))


def test_a_summary_has_no_follow_up():
    assert follow_up(row("a", "summary_dialogue")) == ""


@pytest.mark.parametrize(
    ("generated", "answer"),
    [(" Oslo\n\nContext: more", "Oslo"), ("\n Oslo ", "Oslo"), ("", ""), (" \n", "")],
)
def test_the_answer_is_the_first_line_with_text(generated, answer):
    assert answer_text(generated) == answer


def test_shots_depend_on_ids_and_seed_but_not_on_order():
    rows = [row(str(number)) for number in range(50)]
    chosen = choose_shots(rows, 3, seed=0)
    assert len({shot.id for shot in chosen}) == 3
    assert choose_shots(rows[::-1], 3, seed=0) == chosen
    assert choose_shots(rows, 3, seed=1) != chosen


def test_more_shots_than_rows_are_refused():
    with pytest.raises(DataError, match=r"2 few-shot examples.*only 1 rows"):
        choose_shots([row("a")], 2, seed=0)
