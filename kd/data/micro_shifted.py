"""Two neighbours of the generated SQuAD, for tests of what students do outside their domain.

`squad_words` says the same things in the same way about other people, places and things: none
of its words stands in any of the five datasets. `squad_style` is about the same ones, and says
and asks it in other sentences.
"""

import random

from kd.data import micro_words as words
from kd.data.micro_worlds import Fact, Scene, biography, scene


class OtherWords:
    """What `squad_words` is about."""

    NAMES = """
    Abe Amy Bob Cora Dan Ella Fay Gil Hugo Ivy Joan Ken Lou Max Nora Otto Paul Ruth Seth Tina
    """.split()
    CITIES = "Bari Brno Caen Cali Gent Hull Kobe Metz Nara Oran Suva Tartu Tunis Vigo".split()
    JOBS = "author banker barber builder dentist drummer lawyer mason porter sailor waiter".split()
    MANNERS = "clever lonely proud shy".split()
    FOODS = "apples butter cheese dates garlic mango oats onions pasta peas toast".split()
    HOBBIES = "archery ballet boxing darts fencing hockey jogging karate poker surfing".split()
    PETS = "beetle camel donkey ferret gecko hamster lizard pony rabbit sheep turtle".split()
    COLOURS = "amber beige cream ivory lilac mauve olive purple scarlet tan yellow".split()
    MONTHS = "autumn December November spring summer winter".split()


def squad_words(rng: random.Random) -> Scene:
    """Short spans of the biography of somebody whom no other dataset knows."""
    return biography(rng, OtherWords)


def squad_style(rng: random.Random) -> Scene:
    """Short spans of a biography in another style."""
    name, mother = rng.sample(words.NAMES, 2)
    born, home = rng.sample(words.CITIES, 2)
    job, manner = rng.choice(words.JOBS), rng.choice(words.MANNERS)
    food, hobby, pet = (rng.choice(pool) for pool in (words.FOODS, words.HOBBIES, words.PETS))
    colour, month = rng.choice(words.COLOURS), rng.choice(words.MONTHS)
    facts: list[Fact] = [
        (f"It was {born} that saw the birth of {name}.", [f"Birthplace of {name}?"], [born]),
        (
            f"Close to {home} is the house of {name}.",
            [f"The house of {name} is close to what?"],
            [home],
        ),
        (
            f"As a {manner} {job}, {name} earns a wage.",
            [f"As what does {name} earn a wage?"],
            [job, f"{manner} {job}"],
        ),
        (f"For {name}, a meal means {food}.", [f"A meal means what for {name}?"], [food]),
        (
            f"Free hours of {name} go to {hobby}.",
            [f"To what do free hours of {name} go?"],
            [hobby],
        ),
        (
            f"With {name} lives a {colour} {pet}.",
            [f"Which animal lives with {name}?"],
            [f"{colour} {pet}", pet],
        ),
        (
            f"Since {month} there is a ring on the hand of {name}.",
            [f"Since when does {name} wear a ring?"],
            [month],
        ),
        (f"{mother} has a child, and it is {name}.", [f"Whose child is {name}?"], [mother]),
    ]
    return scene(rng, facts, 5, "", "")
