"""Checklists of conferences, filled in as far as manifests answer them."""

from collections.abc import Callable
from dataclasses import dataclass

from kd.audit.scope import Scope
from kd.exports.facts import Facts, gather

NOT_ANSWERABLE = "not answerable from manifests"


@dataclass(frozen=True)
class Item:
    """A question in our own few words; `answer` is None where no manifest can know."""

    number: str
    question: str
    answer: Callable[[Facts], str] | None = None
    remark: str = ""  # what the authors still have to say themselves


@dataclass(frozen=True)
class Checklist:
    """A checklist's name, its address, and its items in order."""

    title: str
    address: str
    items: tuple[Item, ...]


def render_checklist(checklist: Checklist, scope: Scope) -> str:
    """Markdown: each item with yes and the evidence, or with what keeps it unanswered."""
    facts = gather(scope)
    answered = [_answer(item, facts) for item in checklist.items]
    count = sum(bool(answer) for answer in answered)
    lines = [
        f"# {checklist.title}: {scope.target.title()}",
        "",
        f"Filled in from manifests by `kd export checklist`: {count} of {len(answered)} items have "
        "evidence. Questions are abridged; the authors answer for all of them, in the words of "
        f"<{checklist.address}>.",
        "",
    ]
    for item, answer in zip(checklist.items, answered, strict=True):
        lines += [f"## {item.number}. {item.question}", ""]
        lines += [f"**Yes.** {answer}." if answer else f"*{NOT_ANSWERABLE}.*"]
        lines += [item.remark] if item.remark else []
        lines += [""]
    return "\n".join(lines)


def _answer(item: Item, facts: Facts) -> str:
    return item.answer(facts) if item.answer is not None else ""
