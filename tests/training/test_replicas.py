"""One of several replicas that are never synchronised reads its own part of the rows, always."""

import pytest

from kd.teacher.answers import Answer
from kd.training.examples import one_part, subset

ANSWERS = [Answer(f"r{n}", "train", "p", "a", "eos") for n in range(103)]


@pytest.mark.parametrize("parts", [2, 4, 7])
def test_a_part_is_a_share_drawn_by_seed_in_order(parts):
    part = one_part(ANSWERS, parts, seed=0)
    assert len(part) == 103 // parts
    assert part == sorted(part, key=ANSWERS.index) == one_part(ANSWERS, parts, seed=0)
    assert part != one_part(ANSWERS, parts, seed=1)


def test_one_part_is_everything():
    assert one_part(ANSWERS, 1, seed=0) == ANSWERS


def test_it_is_not_the_share_that_a_fraction_takes():
    """Both are drawn by the same seed: a quarter of a quarter must not be the quarter itself."""
    quarter = subset(ANSWERS, 25, seed=0)
    assert quarter != one_part(ANSWERS, 4, seed=0)
    assert len(one_part(quarter, 4, seed=0)) == len(quarter) // 4
