"""Effects with intervals: two methods compared over test examples and training seeds.

The interval is a bootstrap's (10,000 resamples by default), made honest for few seeds:

- Examples are resampled with replacement, all seeds and all lines of a dataset together. The
  resampled deviations are scaled to the examples' own variance component (the plain bootstrap
  of a crossed layout counts the residual several times: Owen, "The pigeonhole bootstrap",
  Annals of Applied Statistics 1(2), 2007), by n/(n-1), and by the chi-square uncertainty of
  that variance, so that intervals have the width of Student's t (Hesterberg, "What teachers
  should know about the bootstrap", The American Statistician 69(4), 2015, section 3.2).
- Resampling three seeds says nothing about other seeds. Their share is drawn instead from
  Student's t with the table's moderated variance and degrees of freedom
  (`kd.tables.seed_noise`). Adding both draws is Behrens and Fisher's answer to two unknown
  variances; a normal approximation would be too narrow.
- The interval is symmetric: value ± the 95 % quantile of |resampled error| (Hall, "On
  symmetric bootstrap confidence intervals", JRSS B 50(1), 1988). Of the percentile, basic
  and studentised intervals it was the best calibrated on scores with many zeros and ones.

With one seed the interval covers other test examples only, and says so: it is about these
trained models, and where seeds matter another seed may well fall outside it.
`benchmarks/null_tables.py` measures how often tables without any effect are called
significant.

Random numbers are drawn from a digest of the names of table, line and column: the same
table has the same intervals whenever it is made, in whatever order its lines come.
"""

import hashlib
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

import numpy as np
from scipy.stats import t as student_t

from kd.tables.seed_noise import Matrix, SeedNoise, components, fit_seed_noise

Over = Literal["examples", "seeds", "examples and seeds"]
Key = TypeVar("Key", bound=Hashable)

LEVEL = 0.95
RESAMPLES = 9_999  # a p-value is a multiple of 1/(RESAMPLES + 1)
SIGNIFICANT = 0.05  # the p up to which a gain is called significant
# Fewer say too little: all n differences of one sign have p = 2/2^n under any symmetric null, which
# a bootstrap, of width 0 then, calls 0. In 15 null lines of ±100 points Holm's correction found a
# gain in 37 % of tables with 6 examples, 16 % with 8, 9 % with 10, and 6 % with 12.
FEWEST_EXAMPLES = 12
FEWEST_RUNS = 3  # from which on a prediction interval is worth its name
DECIMALS = 9  # that are written: the last bits depend on the processor
_CHUNK = 2**15  # resampled examples at a time: what a processor's cache holds
_NOTHING_SHARED = SeedNoise()


@dataclass(frozen=True)
class Estimate:
    """An effect in points (or nats), and how far it may be off.

    Attributes:
        value: the effect, positive where the first method is better.
        errors: absolute resampled errors, ascending; None where neither examples nor seeds
            vary, or where there are too few examples, so that nothing can be said.
        over: what the interval covers.
    """

    value: float
    errors: Matrix | None
    over: Over | None

    def half_width(self, level: float = LEVEL) -> float | None:
        """Half the interval's width: the smallest effect that would have been significant."""
        if self.errors is None:
            return None
        beyond = int(round((1 - level) * (len(self.errors) + 1), 9))
        return float(self.errors[-beyond]) if beyond else float("inf")

    def interval(self, level: float = LEVEL) -> tuple[float, float] | None:
        """Bounds of the two-sided interval."""
        half = self.half_width(level)
        return None if half is None else (self.value - half, self.value + half)

    def p_value(self, against: float = 0.0) -> float | None:
        """Two-sided p of the hypothesis that the effect is `against`.

        It is at most 1 - level exactly where the interval of that level excludes `against`.
        """
        if self.errors is None:
            return None
        below = np.searchsorted(self.errors, abs(self.value - against), side="left")
        return float(len(self.errors) - below + 1) / (len(self.errors) + 1)


@dataclass(frozen=True)
class Comparison:
    """One gain of a table, in points: value, 95 % interval, p and Holm's p over the table."""

    value: float
    low: float | None
    high: float | None
    p: float | None
    p_holm: float | None
    over: Over | None


@dataclass(frozen=True)
class Spread:
    """Mean, standard deviation (ddof 1; None for one value) and number of seeds."""

    mean: float
    sd: float | None
    n: int


def compare(
    differences: Mapping[Key, Matrix], table: str, resamples: int = RESAMPLES
) -> dict[Key, Comparison]:
    """All gains of one table.

    Args:
        differences: for each line and column, scores minus the baseline's in points, [S, n]:
            one row a seed, one column a test example.
        table: name that, with the line's key, seeds the resampling.
        resamples: number of resamples.
    """
    noise = fit_seed_noise(differences.values())
    estimates = {
        key: estimate([matrix], (table, str(key)), noise, resamples)
        for key, matrix in differences.items()
    }
    finer = needed_resamples(len(estimates), resamples)
    for key, found in estimates.items():
        if finer > resamples and found.p_value() == 1 / (resamples + 1):
            estimates[key] = estimate([differences[key]], (table, str(key)), noise, finer)
    raw = {key: found.p_value() for key, found in estimates.items()}
    adjusted = dict(zip(raw, holm(list(raw.values())), strict=True))
    return {key: _comparison(found, adjusted[key]) for key, found in estimates.items()}


def needed_resamples(tests: int, resamples: int) -> int:
    """As many resamples as Holm's correction over `tests` gains needs to call one significant.

    The smallest p is 1/(resamples + 1), and the correction multiplies it by `tests`: beyond 500
    gains, 9,999 resamples would call none significant. Half the level is to be reached.
    """
    return max(resamples, int(np.ceil(2 * tests / SIGNIFICANT)) - 1)


def _comparison(found: Estimate, p_holm: float | None) -> Comparison:
    low, high = found.interval() or (None, None)
    return Comparison(found.value, low, high, found.p_value(), p_holm, found.over)


def estimate(
    blocks: Sequence[Matrix],
    name: Sequence[str],
    noise: SeedNoise = _NOTHING_SHARED,
    resamples: int = RESAMPLES,
) -> Estimate:
    """A sum of means over independent blocks, with its resampled errors.

    A block is all that a comparison takes from one dataset: a weighted sum of lines [S, n].
    Lines of one dataset share test examples and the order of training rows at a seed, so they
    are summed before anything is resampled; blocks share neither.

    Args:
        blocks: [S, n] each, in points. One row means scores without seeds.
        name: words that seed the resampling.
        noise: what the table's lines know about seeds.
        resamples: number of resamples.
    """
    value = float(sum(block.mean() for block in blocks))
    shapes = [block.shape for block in blocks]
    over = _over(min(s for s, _ in shapes) > 1, min(n for _, n in shapes) > 1)
    few = 1 < sum(n for _, n in shapes) < FEWEST_EXAMPLES and over != "seeds"
    if over is None or few:
        return Estimate(value, None, None)
    generator = seeded(name)
    errors = np.abs(sum(_errors(block, noise, generator, resamples) for block in blocks))
    if over == "seeds" and not errors.any():
        return Estimate(value, None, None)  # a few seeds that agree by chance are no certainty
    return Estimate(value, np.sort(errors), over)


def _over(seeds: bool, examples: bool) -> Over | None:
    if seeds and examples:
        return "examples and seeds"
    if examples:
        return "examples"
    return "seeds" if seeds else None


def seeded(name: Sequence[str]) -> np.random.Generator:
    """A generator that depends on the words in `name` alone."""
    digest = hashlib.sha256("\0".join(name).encode()).digest()
    return np.random.default_rng(np.frombuffer(digest, dtype=np.uint32))


def _errors(
    block: Matrix, noise: SeedNoise, generator: np.random.Generator, resamples: int
) -> Matrix:
    """Resampled errors of the block's mean, [resamples]."""
    seeds, count = block.shape
    found = components(block)
    errors = np.zeros(resamples)
    if count > 1 and found.examples > 0:
        share = found.examples_alone / found.examples
        width = np.sqrt(share * count / generator.chisquare(count - 1, resamples))
        errors += width * _resampled_means(block.mean(axis=0), generator, resamples)
    if seeds > 1:
        mean_square, freedom = noise.moderate(found, seeds)
        drawn = generator.standard_t(freedom, resamples)
        errors += np.sqrt(mean_square / block.size) * drawn
    return errors


def _resampled_means(values: Matrix, generator: np.random.Generator, resamples: int) -> Matrix:
    """Means of `values` [n] drawn with replacement, less their mean, [resamples]."""
    centred = values - values.mean()
    step = max(1, _CHUNK // len(values))
    chunks = [min(step, resamples - start) for start in range(0, resamples, step)]
    draws = (generator.integers(0, len(values), (size, len(values))) for size in chunks)
    return np.concatenate([centred[draw].mean(axis=1) for draw in draws])


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Holm's step-down correction; None stays None and is not counted.

    Source: Holm, "A simple sequentially rejective multiple test procedure", Scandinavian
    Journal of Statistics 6(2), 1979.
    """
    known = sorted((p, index) for index, p in enumerate(p_values) if p is not None)
    adjusted: list[float | None] = [None] * len(p_values)
    largest = 0.0
    for rank, (p, index) in enumerate(known):
        largest = max(largest, min(1.0, (len(known) - rank) * p))
        adjusted[index] = largest
    return adjusted


def spread(values: Sequence[float]) -> Spread:
    """Mean and standard deviation of one cell's `values` over seeds."""
    several = len(values) > 1
    return Spread(
        float(np.mean(values)), float(np.std(values, ddof=1)) if several else None, len(values)
    )


def prediction_interval(
    values: Sequence[float], level: float = LEVEL
) -> tuple[float, float] | None:
    """Where one more run would fall, from the runs in `values`; None for fewer than two.

    mean ± t(n-1) · sd · sqrt(1 + 1/n), the rule by which CORE-Bench accepts a reported number
    (Siegel et al., arXiv 2409.11363).
    """
    found = spread(values)
    if found.sd is None:
        return None
    half = float(student_t.ppf((1 + level) / 2, found.n - 1)) * found.sd * (1 + 1 / found.n) ** 0.5
    return found.mean - half, found.mean + half


def prediction_of_runs(values: Sequence[float]) -> tuple[float, float] | None:
    """The prediction interval of runs; None for fewer than three, which say too little."""
    return prediction_interval(values) if len(values) >= FEWEST_RUNS else None
