"""How long jobs take together on some cores: list scheduling, as Snakemake does it."""

import heapq
from collections.abc import Sequence


def critical_path(seconds: Sequence[float], predecessors: Sequence[Sequence[int]]) -> list[float]:
    """For each job the seconds from its start to the end of the longest chain that it heads.

    Raises:
        ValueError: jobs wait for each other in a circle.
    """
    followers: list[list[int]] = [[] for _ in seconds]
    for index, before in enumerate(predecessors):
        for one in before:
            followers[one].append(index)
    waiting = [len(found) for found in followers]
    ready = [index for index, count in enumerate(waiting) if count == 0]
    lengths = list(seconds)
    done = 0
    while ready:
        index = ready.pop()
        done += 1
        lengths[index] += max((lengths[one] for one in followers[index]), default=0.0)
        for one in predecessors[index]:
            waiting[one] -= 1
            if waiting[one] == 0:
                ready.append(one)
    if done < len(lengths):
        raise ValueError("jobs wait for each other in a circle")
    return lengths


def makespan(
    seconds: Sequence[float], predecessors: Sequence[Sequence[int]], workers: int
) -> float:
    """Seconds until all jobs are done, `workers` of them at a time.

    The next job is always the one with the longest chain behind it.
    """
    lengths = critical_path(seconds, predecessors)
    followers: list[list[int]] = [[] for _ in seconds]
    missing = [len(before) for before in predecessors]
    for index, before in enumerate(predecessors):
        for one in before:
            followers[one].append(index)
    ready = [(-lengths[index], index) for index, count in enumerate(missing) if count == 0]
    heapq.heapify(ready)
    running: list[tuple[float, int]] = []
    now = 0.0
    while ready or running:
        while ready and len(running) < workers:
            _, index = heapq.heappop(ready)
            heapq.heappush(running, (now + seconds[index], index))
        now, ended = heapq.heappop(running)
        for one in followers[ended]:
            missing[one] -= 1
            if missing[one] == 0:
                heapq.heappush(ready, (-lengths[one], one))
    return now
