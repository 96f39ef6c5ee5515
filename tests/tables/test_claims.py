"""Claims against scores made for them: what holds, what does not, and what is undecided."""

from pathlib import Path

import numpy as np
import pytest
import yaml

from kd.errors import ArtifactError
from kd.experiment.claims import Claim, Place, claim_pairs, place_columns
from kd.experiment.loading import EXPERIMENTS
from kd.experiment.stages import TableSpec
from kd.tables.claim_sentences import describe
from kd.tables.claims import _joined, at_least, evaluate, evaluate_claims
from kd.tables.published import read_published
from kd.tables.samples import Sample, Unavailable, difference, gains, stack, table_columns
from kd.tables.statistics import seeded

DATASETS, STUDENTS, FRACTIONS = ("squad", "qed"), ("small", "middle", "large"), (50, 100)
IDS = tuple(f"q{number}" for number in range(60))
PLACES = [Place(d, "llama", s, f) for d in DATASETS for s in STUDENTS for f in FRACTIONS]
COLUMNS = place_columns(
    ((place, None) for place in PLACES), "teacher_text", ["teacher_text", "uld"]
)


def claim(**keys):
    content = {"text": "x", "table": "t", "left": {"method": "uld"}}
    return Claim.model_validate(content | {"right": {"method": "teacher_text"}} | keys)


class Scores:
    """Scores that differ by `gain(place)` points plus noise of `noise` points an example."""

    def __init__(self, gain=lambda place: 0.0, noise=1.0, seeds=(0, 1, 2)):
        self.gain, self.noise, self.seeds = gain, noise, seeds

    def __call__(self, place, column, metric):
        hard = 50 + 20 * seeded((place.dataset,)).standard_normal(len(IDS))
        if column in ("teacher_score", "native"):
            return Sample(IDS, hard[None] + (5 if column == "teacher_score" else -30))
        draw = seeded((repr(place), column, str(metric)))
        values = hard + self.noise * draw.standard_normal((len(self.seeds), len(IDS)))
        return Sample(IDS, values + (self.gain(place) if column == "uld" else 0), self.seeds)


def verdict(scores, **keys):
    return evaluate("c", claim(**keys), COLUMNS, scores, resamples=1999)


@pytest.mark.parametrize("seeds", [(0,), (0, 1, 2)])
@pytest.mark.parametrize(
    ("gain", "outcome"), [(2.0, "holds"), (-2.0, "does not hold"), (0.0, "undecided")]
)
def test_a_mean_holds_does_not_hold_or_is_undecided(gain, outcome, seeds):
    found = verdict(Scores(lambda place: gain, seeds=seeds))
    assert found.outcome == outcome
    assert found.value == pytest.approx(gain, abs=0.3)
    assert found.low < found.value < found.high
    assert found.margin == found.value and found.lines == 12
    assert found.decidable == pytest.approx((found.high - found.low) / 2)
    assert found.over == ("examples" if len(seeds) == 1 else "examples and seeds")


def test_an_effect_just_above_the_decidable_one_is_decided():
    scores = Scores()
    undecided = verdict(scores)
    lifted = Scores(lambda place: undecided.decidable - undecided.value + 0.01)
    assert undecided.outcome == "undecided"
    assert verdict(lifted).outcome == "holds"
    assert verdict(lifted).decidable == pytest.approx(undecided.decidable)


def test_margins():
    scores = Scores(lambda place: 1.0)
    assert verdict(scores, margin=0.5).outcome == "holds"
    assert verdict(scores, margin=1.5).outcome == "does not hold"
    worse = Scores(lambda place: -1.0)
    assert verdict(worse, relation="at_least").outcome == "does not hold"
    tolerant = verdict(worse, relation="at_least", margin=1.5)
    assert tolerant.outcome == "holds"
    assert tolerant.margin == pytest.approx(0.5, abs=0.2)


def test_equivalence_needs_the_interval_within_the_margin():
    near, far = Scores(lambda place: 0.2), Scores(lambda place: 3.0)
    assert verdict(near, relation="equivalent", margin=1.0).outcome == "holds"
    assert verdict(near, relation="equivalent", margin=0.2).outcome == "undecided"
    found = verdict(far, relation="equivalent", margin=1.0)
    assert found.outcome == "does not hold" and found.margin == pytest.approx(-2, abs=0.3)


def test_equal_scores_are_at_least_as_good_but_not_better():
    same = Scores(noise=0.0)
    assert verdict(same, relation="at_least").outcome == "holds"
    assert verdict(same, relation="greater").outcome == "does not hold"
    counted = {"over": "lines", "count": "all"}
    assert verdict(same, relation="at_least", **counted).outcome == "holds"
    assert verdict(same, relation="greater", **counted).outcome == "does not hold"


def test_sides_may_differ_in_an_axis():
    scores = Scores(lambda place: 4.0 if place.fraction == 50 else -4.0)
    left, right = {"method": "uld", "fraction": 50}, {"method": "teacher_text", "fraction": 100}
    half = {"left": left, "right": right, "where": {"dataset": "squad"}}
    found = verdict(scores, **half)
    assert found.outcome == "holds" and found.lines == 3
    assert found.value == pytest.approx(4, abs=0.4)


def test_a_student_may_be_compared_with_its_teacher():
    scores = Scores(lambda place: 10.0 if place.student == "large" else 0.0)
    right = {"method": "teacher_score"}
    found = verdict(scores, right=right, where={"student": "large", "fraction": 100})
    assert found.outcome == "holds" and found.value == pytest.approx(5, abs=0.4)
    assert verdict(scores, right=right, where={"student": "small"}).outcome == "does not hold"


def test_a_comparison_without_seeds_is_over_examples():
    sides = {"left": {"method": "teacher_score"}, "right": {"method": "native"}}
    found = verdict(Scores(), **sides)
    assert found.over == "examples" and found.value == pytest.approx(35)


def test_lines_of_one_dataset_are_resampled_together():
    """Two lines whose examples differ in opposite ways: their mean is certain."""
    swing = 40 * seeded(("swing",)).standard_normal(len(IDS))

    def scores(place, column, metric):
        sign = {"small": 1, "large": -1}[place.student] if column == "uld" else 0
        return Sample(IDS, (sign * swing + 3 * (column == "uld"))[None], (0,))

    keys = {"where": {"dataset": "squad", "fraction": 100, "student": ["small", "large"]}}
    found = verdict(scores, **keys)
    assert found.outcome == "holds" and found.decidable == pytest.approx(0, abs=1e-9)
    keys["where"]["student"] = "small"
    assert verdict(scores, **keys).decidable > 5


def test_seeds_that_move_all_lines_of_a_dataset_count_once():
    """A seed's share that lines have in common does not average out."""

    def moved(place, column, metric):
        sample = Scores()(place, column, metric)
        shift = np.array([[-5.0], [0.0], [5.0]]) if column == "uld" else 0
        return Sample(sample.ids, sample.values + shift, sample.seeds)

    assert verdict(Scores()).decidable < 0.5
    # Of two datasets, t with 4 degrees of freedom: 2.78 * 5 / sqrt(3) / sqrt(2).
    assert verdict(moved).decidable == pytest.approx(5.7, rel=0.15)


SLOPES = {"small": 3.0, "middle": 2.0, "large": -2.0}


def test_a_trend_is_the_change_that_a_line_fits():
    scores = Scores(lambda place: SLOPES[place.student], noise=0.2)
    found = verdict(scores, over="trend", along="student", relation="falls")
    assert found.value == pytest.approx(-5, abs=0.2)  # slope (-2 - 3)/2, two steps
    assert found.outcome == "holds" and found.margin == pytest.approx(5, abs=0.2)
    rising = verdict(scores, over="trend", along="student", relation="rises")
    assert rising.outcome == "does not hold" and rising.margin < 0
    order = ["large", "middle", "small"]
    turned = verdict(scores, over="trend", along="student", relation="rises", order=order)
    assert turned.outcome == "holds" and turned.value == pytest.approx(-found.value)


def test_a_flat_trend_is_undecided():
    found = verdict(Scores(), over="trend", along="student", relation="falls")
    assert found.outcome == "undecided" and found.low < 0 < found.high


def test_a_trend_weighs_four_values_by_least_squares():
    places = [Place("squad", "llama", "opt", share) for share in (25, 50, 75, 100)]
    columns = place_columns(((place, None) for place in places), "a", ["a", "uld"])
    gained = {25: 0.0, 50: 0.0, 75: 0.0, 100: 10.0}

    def scores(place, column, metric):
        return Sample(IDS, np.full((1, 60), gained[place.fraction] * (column == "uld")), (0,))

    keys = {"over": "trend", "along": "fraction", "relation": "rises", "right": {"method": "a"}}
    found = evaluate("c", claim(**keys), columns, scores, 199)
    assert found.value == pytest.approx(9)  # slope 1.5 * 10 / 5 = 3 a step, three steps


def test_a_count_of_lines():
    better = Scores(lambda place: -3.0 if place.dataset == "qed" else 3.0)
    found = verdict(better, over="lines", count=6)
    assert (found.value, found.low, found.high) == (6, 6, 6)
    assert found.outcome == "holds" and found.margin == 0 and found.lines == 12
    assert verdict(better, over="lines", count=7).outcome == "does not hold"
    assert verdict(better, over="lines", count="all").outcome == "does not hold"
    vague = verdict(Scores(), over="lines", count=6)
    assert vague.outcome == "undecided"
    assert vague.low <= vague.value <= vague.high


def test_the_bound_on_a_count_by_hand():
    # 3 * 0.001, 2 * 0.002 and 1 * 0.2 against 0.025.
    assert at_least([0.2, 0.001, 0.002]) == 2
    assert at_least([0.02, 0.02, 0.02]) == 0
    assert at_least([0.001]) == 1 and at_least([]) == 0


def test_the_same_method_under_two_seeds_is_undecided():
    """The planted null: seeds move scores by 3 points, and nothing else differs."""

    def scores(place, column, metric):
        moved = 3 * seeded((repr(place), "seed")).standard_normal((6, 1))
        sample = Scores(seeds=tuple(range(6)))(place, column, metric)
        return Sample(sample.ids, sample.values + moved, sample.seeds)

    sides = {
        "left": {"method": "uld", "seeds": [0, 1, 2]},
        "right": {"method": "uld", "seeds": [3, 4, 5]},
    }
    for relation in ("greater", "at_least"):
        found = verdict(scores, relation=relation, **sides)
        assert found.outcome == "undecided" and found.decidable > 0.5
    far = {"method": "uld", "seeds": [7, 8, 9]}
    missing = verdict(scores, left=sides["left"], right=far)
    assert missing.outcome == "undecided" and missing.reason == "seed 7 was not run"


def test_a_missing_metric_leaves_a_claim_undecided():
    def scores(place, column, metric):
        if metric == "bertscore" and place.student == "large":
            raise Unavailable("no encoder")
        return Scores(lambda place: 2.0)(place, column, metric)

    found = verdict(scores, metric="bertscore")
    assert (found.outcome, found.value, found.reason) == ("undecided", None, "no encoder")
    assert describe(claim(), found) == "Undecided: no encoder."
    small = verdict(scores, metric="bertscore", where={"student": "small"})
    assert small.outcome == "holds"


def test_one_number_a_cell_has_a_value_but_no_verdict():
    found = verdict(lambda place, column, metric: Sample(("a",), np.array([[1.0]]), (0,)))
    assert found.outcome == "undecided" and found.value == 0 and found.low is None
    assert "no interval" in describe(claim(), found)


def test_verdicts_read_as_sentences():
    scores = Scores(lambda place: 2.0)
    text = describe(claim(), verdict(scores))
    assert text.startswith("Holds: +1.99") and "over examples and seeds; margin +1.99" in text
    count = claim(over="lines", count="all")
    found = verdict(scores, over="lines", count="all")
    assert describe(count, found).startswith("Holds: 12 of 12 lines [12, 12] over")
    assert describe(claim(), verdict(Scores())).startswith("Undecided at this power: ")


SPEC = TableSpec(
    experiment="e",
    name="t",
    title="",
    columns=["dataset", "teacher", "student"],
    rows=[
        {"dataset": d, "teacher": "llama", "student": "small", "fraction": 100} for d in DATASETS
    ],
    methods=["teacher_text", "uld"],
    baseline="teacher_text",
    metrics={"squad": "f1", "qed": "f1"},
    seeds=[0, 1, 2],
    published=None,
)


def test_a_tables_claims_and_gains():
    other = claim(table="elsewhere")
    found = evaluate_claims({"c": claim(), "o": other}, SPEC, Scores(lambda place: 2.0), 999)
    assert list(found) == ["c"] and found["c"].outcome == "holds" and found["c"].lines == 2
    assert [(place.dataset, column) for place, column in gains(SPEC, Scores())] == [
        ("squad", "uld"),
        ("qed", "uld"),
    ]


def test_one_line_a_method():
    rows = [row | {"method": method} for row in SPEC.rows for method in ("uld", "kl")]
    spec = SPEC.model_copy(update={"columns": [*SPEC.columns, "method"], "rows": rows})
    expected = ["teacher_score", "native", "teacher_text", "uld", "kl"]
    assert list(table_columns(spec).values()) == [expected, expected]


def test_samples_are_lined_up_by_example():
    first = stack({0: (["a", "b"], [1.0, 2.0]), 1: (["b", "a"], [4.0, 3.0])})
    assert first.values.tolist() == [[1, 2], [3, 4]] and first.seeds == (0, 1)
    other = Sample(("b", "a"), np.array([[1.0, 1.0]]))
    assert difference(first, other).tolist() == [[0, 1], [2, 3]]
    with pytest.raises(ArtifactError, match="different examples"):
        difference(first, Sample(("a", "c"), np.array([[1.0, 1.0]])))


def published_figures():
    found = read_published(EXPERIMENTS / "published/uld.csv")
    return {(Place(*axes), column): one.value for (*axes, column, _), one in found.items()}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("uld_beats_text", 1.571),
        ("most_pairs_gain", 28),
        ("extractive_gain", 2.302),
        ("student_above_teacher", 55.79 - 53.02),
    ],
)
def test_the_papers_claims_say_what_its_figures_say(name, value):
    """Evaluated on the published scores, one number a cell; values by the audit."""
    figures = published_figures()
    places = dict.fromkeys(
        place
        for place, _ in figures
        if place.student in ("opt", "pythia", "bloom") and place.fraction == 100
    )
    columns = place_columns(
        ((place, None) for place in places), "teacher_text", ["teacher_text", "uld"]
    )
    path = Path(EXPERIMENTS) / "claims/uld.yaml"
    stated = Claim.model_validate(yaml.safe_load(path.read_text(encoding="utf-8"))["claims"][name])

    def scores(place, column, metric):
        return Sample(("all",), np.array([[figures[place, column]]]), (0,))

    assert claim_pairs(stated, columns)
    assert evaluate(name, stated, columns, scores).value == pytest.approx(value, abs=0.005)


def test_differences_between_test_datasets_are_no_noise():
    generator = np.random.default_rng(0)
    noise = [generator.normal(size=(3, n)) for n in (40, 40, 120, 80)]
    same = _joined(noise)
    apart = _joined([b + e for b, e in zip(noise, (30, 0, 0, 0), strict=True)])
    # Effects differ by dataset: the whole moves, and varies as before.
    assert np.allclose(apart - 30, same)
    assert np.allclose(same.mean(axis=1), sum(block.mean(axis=1) for block in noise))
    stratified = sum(block.var() / block.shape[1] for block in noise)
    assert np.isclose(same.var() / same.shape[1], stratified)
