"""How far apart training runs lie that differ by their seed alone: variance components.

A comparison is a matrix [S, n]: for each of S seeds and n test examples, one method's score
minus another's, in points. The model is a two-way layout without replication,

    d[s, i] = effect + a[s] + b[i] + e[s, i],

where a is the seeds' share, b the examples', and e what is left. The mean of the matrix has
the variance var(a)/S + var(b)/n + var(e)/(S n).

Three or five seeds say little about var(a). A table has many lines, though, and they share
what they know: each line's mean square of seeds is drawn towards the table's, as far as the
lines are alike (empirical Bayes; Smyth, "Linear models and empirical Bayes methods for
assessing differential expression", SAGMB 3(1), 2004, section 6.2). Mean squares are drawn
together as ratios to the line's own residual, so that datasets and metrics of different
scale can share. A ratio of 1 means that seeds add nothing to the noise of single examples.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.special import digamma, polygamma

Matrix = NDArray[np.float64]


@dataclass(frozen=True)
class Components:
    """Mean squares of a comparison; each estimates a sum of variances, in squared points.

    `seeds` estimates var(e) + n var(a), `examples` var(e) + S var(b), `residual` var(e).
    A mean square without a degree of freedom is 0.
    """

    seeds: float
    examples: float
    residual: float

    @property
    def examples_alone(self) -> float:
        """S var(b): the examples' mean square without the residual, at least 0."""
        return max(self.examples - self.residual, 0.0)


def components(differences: Matrix) -> Components:
    """Mean squares of `differences` [S, n], by the analysis of variance."""
    seeds, count = differences.shape
    by_seed, by_example = differences.mean(axis=1), differences.mean(axis=0)
    rest = differences - by_seed[:, None] - by_example[None, :] + differences.mean()
    freedom = (seeds - 1) * (count - 1)
    return Components(
        seeds=count * float(by_seed.var(ddof=1)) if seeds > 1 else 0.0,
        examples=seeds * float(by_example.var(ddof=1)) if count > 1 else 0.0,
        residual=float((rest**2).sum()) / freedom if freedom else 0.0,
    )


@dataclass(frozen=True)
class SeedNoise:
    """What a table's lines know together about seeds: a ratio, worth `freedom` degrees.

    Attributes:
        ratio: typical mean square of seeds, in units of the residual.
        freedom: degrees of freedom that the ratio is worth to a line; infinite where all
            lines are alike, 0 where nothing is shared.
        limit: degrees of freedom of all lines together: no line can know more.
    """

    ratio: float = 1.0
    freedom: float = 0.0
    limit: float = np.inf

    def moderate(self, found: Components, seeds: int) -> tuple[float, float]:
        """A line's mean square of seeds after sharing, and its degrees of freedom."""
        own = float(seeds - 1)
        if found.residual <= 0 or self.freedom == 0:
            return found.seeds, own
        total = min(self.freedom + own, max(self.limit, own))
        if np.isinf(self.freedom):
            return self.ratio * found.residual, total
        shared = self.freedom * self.ratio * found.residual
        return (shared + own * found.seeds) / (self.freedom + own), total


def fit_seed_noise(lines: Iterable[Matrix]) -> SeedNoise:
    """What `lines` [S, n], all of one table, know about seeds together.

    The ratios F of the mean squares are taken as ratio * F(S-1, freedom); `ratio` and
    `freedom` follow from mean and variance of log F (Smyth 2004, equations of section 6.2).
    Where log F varies no more than chance makes it, `freedom` is infinite and `ratio` the
    mean. Fewer than two usable lines, or lines of one seed, share nothing. The true ratio is
    at least 1, but an estimate below 1 is kept: Student's t already allows for its chance, and
    a floor made the tests reject 4 nulls of 100 instead of 5.
    """
    usable = [(line.shape[0], components(line)) for line in lines if min(line.shape) > 1]
    pairs = [(s - 1, c.seeds / c.residual) for s, c in usable if c.residual > 0 and c.seeds > 0]
    if len(pairs) < 2:
        return SeedNoise()
    own, ratios = (np.array(column, dtype=float) for column in zip(*pairs, strict=True))
    limit = float(own.sum())
    logs = np.log(ratios) - digamma(own / 2) + np.log(own / 2)
    excess = float(logs.var(ddof=1) - polygamma(1, own / 2).mean())
    if excess <= 0:
        return SeedNoise(float(np.average(ratios, weights=own)), np.inf, limit)
    freedom = 2 * _inverse_trigamma(excess)
    ratio = float(np.exp(logs.mean() + digamma(freedom / 2) - np.log(freedom / 2)))
    return SeedNoise(ratio, freedom, limit)


def _inverse_trigamma(value: float) -> float:
    """The x > 0 with trigamma(x) = value; trigamma falls from infinity to 0.

    1/x < trigamma(x) < 1/x + 1/x^2 encloses it.
    """
    low = 0.5 / value
    high = 1 / value + 1 / np.sqrt(value) + 1
    return float(brentq(lambda x: float(polygamma(1, x)) - value, low, high))
