"""How often tables without any effect are called significant: it should be 5 in 100.

    python benchmarks/null_tables.py [TABLES] [RESAMPLES] [KIND]

Simulates tables whose two methods are equally good, sends them through the code that
compares real ones (`kd.tables.statistics`), and prints the share of rejections at 5 %, beside
the interval in which 99 % of such shares fall when the true rate is 5 %:

- lines: of all lines, by their p-values;
- holm: of tables with any line significant by Holm's p-value;
- mean: of tables by their average gain, as a claim tests it.

About half an hour on one core for 1,000 tables of each kind; KIND does one of them. Where
answers rarely differ (`sparse`), few examples decide, and the tests reject less often than they
might. Rates, and what lies outside: docs/tables.md.
"""

import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Literal

import numpy as np
from scipy.stats import binom

from kd.tables.seed_noise import Matrix, fit_seed_noise
from kd.tables.statistics import compare, estimate, seeded

Kind = Literal["twin", "equal", "sparse", "skewed", "mixed"]
LINES: tuple[Kind, ...] = ("twin", "equal", "sparse", "skewed")
KINDS: tuple[Kind, ...] = ("mixed", *LINES)
DATASETS, STUDENTS = 5, 3


@dataclass(frozen=True)
class Null:
    """A kind of table without effects.

    twin: one method under two names, with other seeds. equal: two methods that are good at
    different examples. sparse: as equal, but nine answers of ten are the same. skewed: one
    method is right or wrong, the other always partly right, and most are wrong. mixed: lines
    of all four kinds in one table.

    `noise` is the typical standard deviation that seeds give a score, as a share of 1. With
    one seed it must be 0: an interval over examples compares these two models, not others.
    """

    kind: Kind
    seeds: int
    examples: int
    noise: float


@dataclass(frozen=True)
class Rates:
    """Shares rejected at 5 %: of lines, of tables by Holm's p, of tables by their mean gain."""

    lines: float
    holm: float
    mean: float


def graded(skill: Matrix) -> Matrix:
    """Skills as token F1 in percent: cut to 0 and 100, in between a multiple of 1/6."""
    return 100 * np.round(6 * np.clip(skill, 0, 1)) / 6


def simulate(null: Null, generator: np.random.Generator) -> dict[tuple[str, int], Matrix]:
    """Differences [S, n] of all lines; lines of one dataset share their examples.

    How far seeds move a line's scores is drawn for each line. A seed also moves all students
    of a dataset alike, as a shared order of training rows might.
    """
    normal = generator.standard_normal
    found = {}
    for dataset in range(DATASETS):
        difficulty = 0.5 + 0.9 * normal(null.examples)
        order = null.noise * normal((2, null.seeds, 1))
        for student in range(STUDENTS):
            size = null.noise * min(generator.lognormal(0, 0.8), 5)
            moved = order + size * normal((2, null.seeds, 1))
            kind = LINES[(student + dataset) % len(LINES)] if null.kind == "mixed" else null.kind
            found[f"dataset{dataset}", student] = _difference(kind, difficulty, moved, generator)
    return found


def _difference(
    kind: Kind, difficulty: Matrix, moved: Matrix, generator: np.random.Generator
) -> Matrix:
    normal, n = generator.standard_normal, len(difficulty)
    shape = (2, moved.shape[1], n)
    if kind == "skewed":
        share = 1 / (1 + np.exp(-(2 * difficulty - 3.5 + 2 * moved)))
        first = 100.0 * (generator.random(shape[1:]) < share[0])
        return first - 100 * share[1]
    if kind == "twin":
        skill = 0.4 * normal(n) + 0.5 * normal(shape) + moved
    elif kind == "equal":
        skill = 0.5 * normal((2, 1, n)) + 0.4 * normal(shape) + moved
    else:
        changed = generator.random(n) < 0.1
        skill = changed * (0.8 * normal((2, 1, n)) + 0.5 * normal(shape) + moved)
    scores = graded(difficulty + skill)
    return scores[0] - scores[1]


def rejected(
    lines: dict[tuple[str, int], Matrix], name: str, resamples: int
) -> tuple[float, bool, bool]:
    """Share of a table's lines, any line by Holm, and the mean gain: significant at 5 %?"""
    gains = compare(lines, name, resamples).values()
    blocks: dict[str, Matrix] = {}
    for (dataset, _), matrix in lines.items():
        blocks[dataset] = blocks.get(dataset, np.zeros_like(matrix)) + matrix / len(lines)
    noise = fit_seed_noise(blocks.values())
    mean = estimate(list(blocks.values()), (name, "mean"), noise, resamples).p_value()
    raw = [gain.p for gain in gains if gain.p is not None]
    adjusted = [gain.p_holm for gain in gains if gain.p_holm is not None]
    assert mean is not None
    return float(np.mean(np.array(raw) <= 0.05)), min(adjusted) <= 0.05, mean <= 0.05


def rates(null: Null, tables: int, resamples: int = 999) -> Rates:
    """Shares of `tables` simulated tables that are rejected."""
    found = []
    for number in range(tables):
        name = f"{null}-{number}"
        found.append(rejected(simulate(null, seeded((name, "scores"))), name, resamples))
    lines, holm, mean = np.mean(found, axis=0)
    return Rates(float(lines), float(holm), float(mean))


def interval(tables: int, rate: float = 0.05, level: float = 0.99) -> tuple[float, float]:
    """Where the share of rejections falls with probability `level` if the true rate is `rate`."""
    low, high = binom.interval(level, tables, rate)
    return float(low) / tables, float(high) / tables


def nulls(kinds: Sequence[Kind] = KINDS) -> Iterator[Null]:
    """All `kinds`, numbers of seeds and numbers of examples."""
    for kind, seeds, examples in product(kinds, (1, 3, 5), (100, 200)):
        yield Null(kind, seeds, examples, noise=0.02 if seeds > 1 else 0.0)


def main() -> None:
    tables = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
    resamples = int(sys.argv[2]) if len(sys.argv) > 2 else 999
    low, high = interval(tables)
    print(f"{tables} tables of each kind; 99 % interval around 5 %: {low:.3f} to {high:.3f}")
    print(f"{'kind':8} seeds examples  lines   holm   mean  seconds")
    kinds = [kind for kind in KINDS if kind in sys.argv[3:]] or KINDS
    for null in nulls(kinds):
        start = time.perf_counter()
        found = rates(null, tables, resamples)
        shown = "  ".join(f"{rate:.3f}" for rate in (found.lines, found.holm, found.mean))
        seconds = time.perf_counter() - start
        print(
            f"{null.kind:8} {null.seeds:5} {null.examples:8}  {shown}  {seconds:7.0f}", flush=True
        )


if __name__ == "__main__":
    main()
