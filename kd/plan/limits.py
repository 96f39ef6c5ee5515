"""Limits of time and memory for a batch system, from a plan: what the longest job may need."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import ceil

# A killed job costs more than minutes that were asked for in vain: twice the estimate, and half
# as much memory again as was ever used. A job ends sooner than its limit, and resumes after it.
TIME_MARGIN, MEMORY_MARGIN = 2.0, 1.5
SHORTEST, SMALLEST = 10, 2000  # minutes, megabytes


@dataclass(frozen=True)
class Limit:
    """What to ask for: minutes and megabytes."""

    runtime: int
    mem_mb: int


def limits(seconds: Mapping[str, Iterable[float]], memory: Mapping[str, float]) -> dict[str, Limit]:
    """A limit for each stage.

    Args:
        seconds: of each of a stage's jobs.
        memory: megabytes that the largest job of a stage takes; stages may lack.
    """
    found = {}
    for stage, jobs in seconds.items():
        minutes = TIME_MARGIN * max(jobs, default=0.0) / 60
        megabytes = MEMORY_MARGIN * memory.get(stage, 0.0)
        found[stage] = Limit(
            max(SHORTEST, _rounded(minutes, 10)), max(SMALLEST, _rounded(megabytes, 500))
        )
    return found


def _rounded(value: float, step: int) -> int:
    return step * ceil(value / step)
