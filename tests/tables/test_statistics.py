"""Effects and intervals: by hand where possible, and calibrated where not."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import polygamma
from scipy.stats import t as student_t

from benchmarks.null_tables import Null, interval, rates, simulate
from kd.tables.seed_noise import SeedNoise, _inverse_trigamma, components, fit_seed_noise
from kd.tables.statistics import compare, estimate, holm, prediction_interval, seeded, spread

p_values = st.floats(0, 1, allow_nan=False)
few = settings(max_examples=50, deadline=None)


def normal(*shape, name="x"):
    return seeded((name,)).standard_normal(shape)


def test_mean_squares_by_hand():
    found = components(np.array([[1.0, 2.0, 3.0], [3.0, 4.0, 8.0]]))
    assert found.seeds == pytest.approx(13.5)  # 3 * var(2, 5)
    assert found.examples == pytest.approx(6.5)  # 2 * var(2, 3, 5.5)
    assert found.residual == pytest.approx(1.5)  # (29.5 - 13.5 - 13) / 2
    assert found.examples_alone == pytest.approx(5.0)


def test_mean_squares_without_a_degree_of_freedom_are_zero():
    assert components(np.array([[1.0, 3.0]])).seeds == 0
    assert components(np.array([[1.0, 3.0]])).residual == 0
    assert components(np.array([[1.0], [3.0]])).examples == 0


@few
@given(st.floats(1e-6, 1e6))
def test_inverse_of_the_trigamma_function(value):
    assert polygamma(1, _inverse_trigamma(value)) == pytest.approx(value, rel=1e-6)


def noisy_lines(ratio, freedom, count, seeds=3, examples=60):
    """Lines whose mean squares of seeds have the given ratio, spread by chi-square."""
    draw = seeded(("noisy", str(ratio), str(freedom)))
    for _ in range(count):
        own = ratio * (freedom / draw.chisquare(freedom) if np.isfinite(freedom) else 1.0)
        moved = np.sqrt(max(own - 1, 0) / examples) * draw.standard_normal((seeds, 1))
        yield draw.standard_normal((seeds, examples)) + moved


def test_lines_that_are_alike_share_everything():
    found = fit_seed_noise(noisy_lines(ratio=3.0, freedom=np.inf, count=400))
    assert found.ratio == pytest.approx(3.0, rel=0.15)
    assert found.freedom > 30
    assert found.limit == 800


def test_lines_that_differ_share_less():
    found = fit_seed_noise(noisy_lines(ratio=8.0, freedom=4.0, count=400))
    assert 2 < found.freedom < 8
    assert found.ratio == pytest.approx(8.0, rel=0.3)


def test_one_seed_or_one_line_shares_nothing():
    assert fit_seed_noise([normal(1, 50), normal(1, 50, name="y")]) == SeedNoise()
    assert fit_seed_noise([normal(3, 50)]) == SeedNoise()


def test_moderation_lies_between_the_line_and_the_table():
    line = components(normal(3, 40) + 5 * normal(3, 1, name="a"))
    noise = SeedNoise(ratio=2.0, freedom=6.0, limit=60)
    moderated, freedom = noise.moderate(line, seeds=3)
    table = 2.0 * line.residual
    assert moderated == pytest.approx((6 * table + 2 * line.seeds) / 8)
    assert freedom == 8
    assert SeedNoise().moderate(line, seeds=3) == (line.seeds, 2)
    assert SeedNoise(2.0, np.inf, 60).moderate(line, seeds=3) == (pytest.approx(table), 60)


def test_one_seed_gives_students_interval_over_examples():
    scores = 40 * normal(1, 150) + 3
    found = estimate([scores], ("t", "one"))
    half = student_t.ppf(0.975, 149) * scores.std(ddof=1) / 150**0.5
    assert found.over == "examples"
    assert found.value == pytest.approx(scores.mean())
    assert found.half_width() == pytest.approx(half, rel=0.03)
    p = 2 * student_t.sf(abs(scores.mean()) / half * student_t.ppf(0.975, 149), 149)
    assert found.p_value() == pytest.approx(p, abs=0.02)


def test_values_without_examples_give_students_interval_over_seeds():
    found = estimate([np.array([[1.0], [2.0], [6.0]])], ("t", "seeds"))
    half = student_t.ppf(0.975, 2) * np.std([1, 2, 6], ddof=1) / 3**0.5
    assert found.over == "seeds"
    assert found.half_width() == pytest.approx(half, rel=0.05)


def test_seeds_that_disagree_widen_the_interval():
    calm = 30 * normal(3, 100) + 2
    moved = calm + np.array([[-6.0], [0.0], [6.0]])
    narrow, wide = (estimate([scores], ("t",)) for scores in (calm, moved))
    assert wide.value == pytest.approx(narrow.value)
    assert wide.half_width() > 2 * narrow.half_width()
    assert wide.over == "examples and seeds"


def test_independent_blocks_add_their_variances():
    blocks = [20 * normal(1, 120, name=name) for name in "ab"]
    single = [estimate([block], ("t", "block")).half_width() for block in blocks]
    together = estimate(blocks, ("t", "both"))
    assert together.value == pytest.approx(sum(block.mean() for block in blocks))
    assert together.half_width() == pytest.approx(np.hypot(*single), rel=0.03)


def test_equal_scores_are_no_evidence():
    found = compare({"a": np.zeros((3, 20)), "b": np.zeros((3, 20))}, "t")["a"]
    assert (found.value, found.low, found.high, found.p, found.p_holm) == (0, 0, 0, 1, 1)


def test_a_single_number_has_no_interval():
    found = compare({"a": np.array([[2.0]])}, "t")["a"]
    assert found.value == 2.0
    assert found.low is found.high is found.p is found.p_holm is found.over is None


@few
@given(st.floats(-20, 20), st.integers(1, 4), st.integers(0, 10**6))
def test_p_and_interval_agree(shift, seeds, number):
    scores = 30 * normal(seeds, 40, name=str(number)) + shift
    found = estimate([scores], ("t",), resamples=199)
    low, high = found.interval()
    assert (found.p_value() <= 0.05) == (low > 0 or high < 0)
    assert 0 < found.p_value() <= 1
    assert low <= found.value <= high


@few
@given(st.floats(0.01, 100), st.floats(-50, 50))
def test_units_do_not_matter(scale, shift):
    scores = normal(3, 40) * 10
    plain, other = (
        estimate([block], ("t",), resamples=199) for block in (scores, scale * scores + shift)
    )
    assert other.value == pytest.approx(scale * plain.value + shift, abs=1e-8)
    assert other.half_width() == pytest.approx(scale * plain.half_width(), rel=1e-6)


def test_a_lines_interval_depends_on_nothing_but_names_and_scores():
    lines = {name: 30 * normal(3, 50, name=name) for name in "abc"}
    once = compare(lines, "t", resamples=499)
    again = compare(dict(reversed(lines.items())), "t", resamples=499)
    for name, found in once.items():
        assert found.low == pytest.approx(again[name].low, rel=1e-9)
    elsewhere = compare(lines, "another", resamples=499)
    assert elsewhere["a"].low != once["a"].low
    assert elsewhere["a"].low == pytest.approx(once["a"].low, rel=0.3)


def test_holm_by_hand():
    assert holm([0.01, 0.04, None, 0.03]) == pytest.approx([0.03, 0.06, None, 0.06])
    assert holm([]) == []


@few
@given(st.lists(p_values, min_size=1, max_size=12), st.randoms())
def test_holm_keeps_order_and_bounds(values, random):
    found = holm(values)
    for (p, q), (other, adjusted) in zip(
        zip(values, found, strict=True), zip(values[1:], found[1:], strict=True), strict=False
    ):
        assert p <= q <= 1 and (p < other) <= (q <= adjusted)
        assert q <= min(1, len(values) * p)
    order = list(range(len(values)))
    random.shuffle(order)
    assert holm([values[i] for i in order]) == [found[i] for i in order]


def test_spread_and_prediction_interval_by_hand():
    assert spread([1.0, 2.0, 3.0]) == spread([3.0, 1.0, 2.0])
    found = spread([1.0, 2.0, 3.0])
    assert (found.mean, found.sd, found.n) == (2.0, 1.0, 3)
    assert spread([5.0]).sd is None and prediction_interval([5.0]) is None
    low, high = prediction_interval([1.0, 2.0, 3.0])
    assert (low, high) == pytest.approx((2 - 4.96827, 2 + 4.96827), abs=1e-5)


@pytest.mark.parametrize(("seeds", "noise"), [(1, 0.0), (3, 0.02), (5, 0.02)])
def test_null_tables_are_rejected_five_times_in_a_hundred(seeds, noise):
    """`benchmarks/null_tables.py` does this for thousands of tables."""
    tables = 120
    found = rates(Null("mixed", seeds, 100, noise), tables, resamples=399)
    low, high = interval(tables)
    assert low <= found.lines <= high
    assert found.holm <= high
    assert low <= found.mean <= high


def test_leaving_the_seeds_out_would_reject_too_often():
    null = Null("twin", 3, 100, noise=0.05)
    rejected = []
    for number in range(60):
        lines = simulate(null, seeded(("seedless", str(number))))
        flat = {key: matrix.mean(axis=0, keepdims=True) for key, matrix in lines.items()}
        rejected += [found.p <= 0.05 for found in compare(flat, str(number), 199).values()]
    assert np.mean(rejected) > 0.1


def test_fewer_than_twelve_examples_have_no_interval():
    assert estimate([np.full((1, 11), 10.0)], ["x"]).interval() is None
    assert estimate([np.full((3, 11), 10.0)], ["x"]).p_value() is None
    assert estimate([np.full((1, 6), 10.0)] * 2, ["x"]).interval() is not None


def test_seeds_that_agree_by_chance_have_no_interval():
    assert estimate([np.full((2, 1), 10.0)], ["x"]).interval() is None
    assert estimate([np.array([[9.0], [11.0]])], ["x"]).over == "seeds"


def test_a_clear_gain_among_very_many_stays_significant():
    """600 gains: the smallest p of 9,999 resamples, times 600, is 0.06."""
    lines = {n: normal(1, 20, name=f"line{n}") for n in range(599)} | {"clear": normal(1, 20) + 50}
    found = compare(lines, "t")
    assert found["clear"].p_holm <= 0.05
    assert sum(one.p_holm <= 0.05 for one in found.values()) < 5
