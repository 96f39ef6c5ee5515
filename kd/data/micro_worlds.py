"""The five generated datasets: how one scene of each is drawn.

A scene is a few rows that belong together: questions about one context, or dialogues
of the same two people. Wordings of answers are drawn at random, as annotators differ,
so that no model can be certain of them.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from kd.data import micro_words as words


@dataclass(frozen=True)
class Item:
    """One row of a scene. `answers` are independent draws of its wording."""

    context: str
    question: str
    answers: list[str]
    title: str = ""


@dataclass(frozen=True)
class Scene:
    """Rows that belong together; scenes with different keys share no context."""

    key: str
    items: list[Item]


DRAWS = 3  # wordings drawn per answer
Fact = tuple[str, list[str], list[str]]  # sentence, questions, equally likely answers


def scene(rng: random.Random, facts: Sequence[Fact], keep: int, lead: str, title: str) -> Scene:
    """A context of `keep` of the facts in random order, and a question about each."""
    chosen = rng.sample(list(facts), keep)
    context = " ".join([*([lead] if lead else []), *(sentence for sentence, _, _ in chosen)])
    items = [
        Item(context, rng.choice(questions), rng.choices(answers, k=DRAWS), title)
        for _, questions, answers in chosen
    ]
    return Scene(context, items)


class Words(Protocol):
    """What a biography is about; `kd.data.micro_words` is one."""

    NAMES: list[str]
    CITIES: list[str]
    JOBS: list[str]
    MANNERS: list[str]
    FOODS: list[str]
    HOBBIES: list[str]
    PETS: list[str]
    COLOURS: list[str]
    MONTHS: list[str]


def squad(rng: random.Random) -> Scene:
    """Short spans of one person's biography."""
    return biography(rng, words)


def biography(rng: random.Random, words: Words) -> Scene:
    """Short spans of the biography of one person who is known in `words`."""
    name, mother = rng.sample(words.NAMES, 2)
    born, home = rng.sample(words.CITIES, 2)
    job, manner = rng.choice(words.JOBS), rng.choice(words.MANNERS)
    food, hobby, pet = (rng.choice(pool) for pool in (words.FOODS, words.HOBBIES, words.PETS))
    colour, month = rng.choice(words.COLOURS), rng.choice(words.MONTHS)
    facts: list[Fact] = [
        (f"{name} was born in {born}.", [f"Where was {name} born?"], [born]),
        (
            f"{name} lives near {home}.",
            [f"Where does {name} live?"],
            [home, home, f"near {home}"],
        ),
        (
            f"{name} works as a {manner} {job}.",
            [f"What does {name} work as?", f"What is the job of {name}?"],
            [job, f"{manner} {job}"],
        ),
        (f"{name} eats {food}.", [f"What does {name} eat?"], [food]),
        (f"{name} enjoys {hobby}.", [f"What does {name} enjoy?"], [hobby]),
        (
            f"{name} owns a {colour} {pet}.",
            [f"What does {name} own?"],
            [f"{colour} {pet}", pet],
        ),
        (f"{name} married in {month}.", [f"When did {name} marry?"], [month]),
        (
            f"The mother of {name} is {mother}.",
            [f"Who is the mother of {name}?"],
            [mother],
        ),
    ]
    return scene(rng, facts, 5, "", "")


def qed(rng: random.Random) -> Scene:
    """Short spans of an article about a building, which only the title names."""
    thing = f"{rng.choice(words.COLOURS)} {rng.choice(words.WORKS)}"
    builder = f"{rng.choice(words.NAMES)} {rng.choice(words.SURNAMES)}"
    owner = f"{rng.choice(words.NAMES)} {rng.choice(words.SURNAMES)}"
    city, year = rng.choice(words.CITIES), rng.choice(words.YEARS)
    material, second = rng.sample(words.MATERIALS, 2)
    cost, event = rng.choice(words.PRICES), rng.choice(words.EVENTS)
    facts: list[Fact] = [
        (f"It stands in {city}.", [f"where does the {thing} stand"], [city]),
        (
            f"It was designed by {builder}.",
            [f"who designed the {thing}"],
            [builder, builder, builder.split()[1]],
        ),
        (f"It opened in {year}.", [f"when did the {thing} open"], [year]),
        (
            f"It is made of {material} and {second}.",
            [f"what is the {thing} made of"],
            [material, f"{material} and {second}"],
        ),
        (
            f"It cost {cost} million.",
            [f"how much did the {thing} cost"],
            [f"{cost} million", cost],
        ),
        (f"It was damaged by {event}.", [f"what damaged the {thing}"], [event]),
        (f"Its owner is {owner}.", [f"who is the owner of the {thing}"], [owner]),
    ]
    return scene(rng, facts, 5, "", f"The {thing}")


def fairytaleqa(rng: random.Random) -> Scene:
    """Answers in the reader's own words about a short tale."""
    name, role = rng.choice(words.NAMES), rng.choice(words.ROLES)
    thing, beast = rng.choice(words.THINGS), rng.choice(words.BEASTS)
    colour, trait = rng.choice(words.COLOURS), rng.choice(words.TRAITS)
    home, place = rng.sample(words.LANDMARKS, 2)
    reward, feeling = rng.choice(words.REWARDS), rng.choice(list(words.FEELINGS))
    facts: list[Fact] = [
        (
            f"{name} the {role} lived by a {trait} {home}.",
            [f"Where did {name} live?"],
            [f"by a {trait} {home}", f"close to the {home}"],
        ),
        (
            f"One day {name} lost a {colour} {thing}.",
            [f"What did {name} lose?"],
            [f"a {colour} {thing}", f"the {thing}"],
        ),
        (
            f"{name} {words.FEELINGS[feeling]}.",
            [f"How did {name} feel?"],
            [feeling, f"very {feeling}"],
        ),
        (
            f"A {beast} searched the {place}.",
            [f"Who helped {name}?"],
            [f"a friendly {beast}", f"the {beast} that searched"],
        ),
        (
            f"{name} gave it {reward}.",
            [f"What did {name} give?"],
            [reward, f"{reward} as a gift"],
        ),
    ]
    return scene(rng, facts, 5, "", "")


def pubmedqa(rng: random.Random) -> Scene:
    """Conclusions with a reason, drawn from the findings of a small trial."""
    drug, disease = rng.choice(words.DRUGS), rng.choice(words.DISEASES)
    patients, harm = rng.choice(words.PATIENTS), rng.choice(words.HARMS)
    outcome, other = rng.sample(words.OUTCOMES, 2)
    weeks = rng.choice(words.NUMBERS)
    effect, conclusions = rng.choice(
        [
            ("fell sharply", [f"Yes, {outcome} fell sharply"]),
            (
                "fell slightly",
                [f"Yes, {outcome} fell slightly", f"Maybe, the fall in {outcome} was small"],
            ),
            ("did not change", [f"No, {outcome} did not change"]),
        ]
    )
    safety, verdict = rng.choice(
        [("rare", f"Yes, only few had {harm}"), ("common", f"No, many suffered from {harm}")]
    )
    facts: list[Fact] = [
        (f"On average {outcome} {effect}.", [f"Does {drug} lower {outcome}?"], conclusions),
        (f"Among them {harm} was {safety}.", [f"Is {drug} safe?"], [verdict]),
        (
            f"The benefit lasted {weeks} weeks.",
            ["Does the benefit last?"],
            [f"It lasted {weeks} weeks", f"Perhaps, about {weeks} weeks"],
        ),
        (
            f"It was best in {patients}.",
            [f"Who should take {drug}?"],
            [f"mainly {patients} with {disease}", f"{patients} who have {disease}"],
        ),
        (
            f"Its role in {other} remains unclear.",
            ["What remains unclear?"],
            [f"its influence on {other}", f"how it changes {other}"],
        ),
    ]
    return scene(rng, facts, 5, f"We tested {drug} against {disease}.", "")


def dialogsum(rng: random.Random) -> Scene:
    """One-sentence summaries of dialogues between the same two people."""
    first, second = rng.sample(words.NAMES, 2)
    kinds: list[Callable[[random.Random, str, str], Item]] = [_invitation, _sale, _trouble, _move]
    items = [kind(rng, first, second) for kind in rng.sample(kinds, 4)]
    return Scene(" and ".join(sorted((first, second))), items)


def _dialogue(rng: random.Random, turns: Sequence[str], summaries: Sequence[str]) -> Item:
    return Item("\n".join(turns), "", rng.choices(list(summaries), k=DRAWS))


def _invitation(rng: random.Random, first: str, second: str) -> Item:
    plan, day = rng.choice(words.PLANS), rng.choice(words.DAYS)
    reply, outcome = rng.choice(
        [("Sure, I would love to.", "accepts"), ("Sorry, I am far too busy.", "declines")]
    )
    turns = [
        f"{first}: Would you like to come with me to {plan}?",
        f"{second}: That could be fun, when is it?",
        f"{first}: It is on {day}.",
        f"{second}: {reply}",
    ]
    summaries = [
        f"{first} invites {second} to {plan} on {day}",
        f"{first} proposes {plan} and {second} {outcome}",
    ]
    return _dialogue(rng, turns, summaries)


def _sale(rng: random.Random, first: str, second: str) -> Item:
    good, price = rng.choice(words.GOODS), rng.choice(words.PRICES)
    turns = [
        f"{first}: Excuse me, do you still have this {good} here?",
        f"{second}: Yes, we do, it is only {price} dollars.",
        f"{first}: Good, then I will take it with me.",
    ]
    summaries = [
        f"{first} buys a {good} from {second} for {price} dollars",
        f"{second} sells {first} a {good}",
    ]
    return _dialogue(rng, turns, summaries)


def _trouble(rng: random.Random, first: str, second: str) -> Item:
    fault, remedy = rng.choice(words.FAULTS), rng.choice(words.REMEDIES)
    turns = [
        f"{second}: Hello, how are you doing today?",
        f"{first}: Not so well, because I have {fault}.",
        f"{second}: I think that you should {remedy}.",
    ]
    summaries = [
        f"{second} advises {first} to {remedy}",
        f"{first} complains about {fault}",
    ]
    return _dialogue(rng, turns, summaries)


def _move(rng: random.Random, first: str, second: str) -> Item:
    city, job = rng.choice(words.CITIES), rng.choice(words.JOBS)
    turns = [
        f"{second}: Is there any news from you?",
        f"{first}: Yes, I am going to {city} soon.",
        f"{second}: Really, and why is that?",
        f"{first}: I found a new job there, as a {job}.",
    ]
    summaries = [
        f"{first} tells {second} about moving to {city}",
        f"{first} plans to work as a {job} in {city}",
    ]
    return _dialogue(rng, turns, summaries)


PAPER_WORLDS: dict[str, Callable[[random.Random], Scene]] = {
    "squad": squad,
    "qed": qed,
    "fairytaleqa": fairytaleqa,
    "pubmedqa": pubmedqa,
    "dialogsum": dialogsum,
}
