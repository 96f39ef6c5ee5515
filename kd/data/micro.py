"""The micro world: five generated datasets that mirror the paper's five tasks, and neighbours.

Every row follows from (seed, world, split, index) alone, so that more rows extend
fewer rows, and no context stands in two splits.
"""

import hashlib
import itertools
import random

from kd.data.micro_shifted import squad_style, squad_words
from kd.data.micro_worlds import PAPER_WORLDS, Item, Scene
from kd.data.rows import Row
from kd.errors import DataError, nearest

TASKS = {
    "squad": "qa",
    "qed": "qa_titled",
    "fairytaleqa": "qa_generative",
    "pubmedqa": "qa_medical",
    "dialogsum": "summary_dialogue",
    "squad_words": "qa",
    "squad_style": "qa",
}
WORLDS = PAPER_WORLDS | {"squad_words": squad_words, "squad_style": squad_style}
# A scene belongs to the split that the hash of its key names, so splits cannot overlap.
SPLIT_SLOTS = {
    "pretraining": range(5),
    "train": range(5, 6),
    "validation": range(6, 7),
    "test": range(7, 8),
}
SLOTS = 8
SCENE_ROWS = 4  # rows that the pretraining split takes of each scene; other splits take one


def generate(world: str, split: str, count: int, seed: int) -> list[Row]:
    """The first `count` rows of a split ('pretraining', 'train', 'validation' or 'test').

    Rows of the pretraining split come in runs of `SCENE_ROWS` that belong together.

    Raises:
        DataError: no such world or split.
    """
    if world not in WORLDS:
        raise DataError(f"No generated dataset is called '{world}'. {nearest(world, WORLDS)}")
    if split not in SPLIT_SLOTS:
        raise DataError(f"The micro world has no split '{split}'. {nearest(split, SPLIT_SLOTS)}")
    return [_row(world, split, index, seed) for index in range(count)]


def _row(world: str, split: str, index: int, seed: int) -> Row:
    per_scene = SCENE_ROWS if split == "pretraining" else 1
    scene = _scene(world, split, index // per_scene, seed)
    item = scene.items[index % per_scene]
    return Row(
        id=f"{world}-{split}-{index}",
        task=TASKS[world],
        title=item.title,
        context=item.context,
        question=item.question,
        answers=_answers(world, split, item),
    )


def _scene(world: str, split: str, index: int, seed: int) -> Scene:
    for attempt in itertools.count():
        rng = random.Random(_hash(f"{seed}/{world}/{split}/{index}/{attempt}"))
        scene = WORLDS[world](rng)
        if _hash(scene.key) % SLOTS in SPLIT_SLOTS[split]:
            return scene
    raise AssertionError("unreachable")


def _answers(world: str, split: str, item: Item) -> list[str]:
    # As in DialogSum, only test dialogues carry several references.
    return item.answers if (world, split) == ("dialogsum", "test") else item.answers[:1]


def _hash(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")
