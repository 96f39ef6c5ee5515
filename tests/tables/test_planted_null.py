"""A planted null, through the real stage: one method under two names, with disjoint seeds."""

import json

import pytest

from kd.tables.assembly import write_table
from kd.tables.statistics import seeded
from tests.tables.scored import named_claim, table_spec, write_results

EXAMPLES, SEEDS = 120, 6
METHODS = ["teacher_text", "uld", "uld_again"]
FIRST, SECOND = [0, 1, 2], [3, 4, 5]


def student(place, kind, seed, gain=0.0):
    """Scores of one trained student: examples differ, and so do seeds, by two points."""
    hard = 50 + 25 * seeded((place.dataset,)).standard_normal(EXAMPLES)
    draw = seeded((place.dataset, kind, str(seed)))
    return (hard + gain + 2 * draw.standard_normal() + 10 * draw.standard_normal(EXAMPLES)).tolist()


def claims_of(tmp_path, gain):
    """What the stage says of `uld_again`, which is `uld` but for `gain` points."""

    def scorer(place, column, seed):
        again = column == "uld_again"
        return student(place, "uld" if again else column, seed, gain if again else 0.0)

    spec = table_spec(
        methods=METHODS,
        seeds=list(range(SEEDS)),
        claims=[
            named_claim(
                "better",
                left={"method": "uld_again", "seeds": SECOND},
                right={"method": "uld", "seeds": FIRST},
            ),
            named_claim(
                "worse",
                left={"method": "uld", "seeds": FIRST},
                right={"method": "uld_again", "seeds": SECOND},
            ),
            named_claim(
                "every_line",
                left={"method": "uld_again", "seeds": SECOND},
                right={"method": "uld", "seeds": FIRST},
                over="lines",
                count="all",
            ),
        ],
    )
    write_results(spec, tmp_path, scorer)
    write_table(spec, tmp_path, tmp_path / "tables")
    content = json.loads((tmp_path / "tables/t.json").read_text())
    return {claim["name"]: claim for claim in content["claims"]}


def test_the_same_method_under_two_names_is_undecided(tmp_path):
    found = claims_of(tmp_path, gain=0.0)
    assert {claim["outcome"] for claim in found.values()} == {"undecided"}
    better = found["better"]
    assert better["low"] < 0 < better["high"] and better["over"] == "examples and seeds"
    assert better["value"] != 0, "other seeds are other students"
    assert "Undecided at this power" in (tmp_path / "tables/t.md").read_text()


@pytest.mark.parametrize(("gain", "outcome"), [(30.0, "holds"), (-30.0, "does not hold")])
def test_a_real_difference_between_two_names_is_decided(tmp_path, gain, outcome):
    found = claims_of(tmp_path, gain)
    assert found["better"]["outcome"] == outcome
    assert found["worse"]["outcome"] != outcome
