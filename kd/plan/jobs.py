"""The jobs behind a target: each stage's command, what it reads, and whether it would run."""

import json
import shlex
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import PurePath
from typing import Any

# Stages as they follow each other; jobs with other commands take no time to speak of.
ORDER = (
    "data",
    "pretrain",
    "fetch",
    "answer",
    "extract",
    "distill",
    "predict",
    "score",
    "table",
    "chart",
    "track",
    "report",
)


@dataclass(frozen=True)
class Job:
    """One stage's job.

    Attributes:
        stage: the `kd` command that it runs.
        spec: the stage's specification; empty if it has none.
        reads: paths that it is given.
        out: path of what it writes.
        pending: whether it would run; if not, its outputs are there and current.
    """

    stage: str
    spec: dict[str, Any]
    reads: tuple[str, ...]
    out: str
    pending: bool


def parse_jobs(commands: Iterable[str], pending: Iterable[str]) -> list[Job]:
    """The stages' jobs among `commands`, of which those in `pending` would run."""
    would_run = set(pending)
    found = (_parse(command, command in would_run) for command in commands)
    return [job for job in found if job is not None]


def _parse(command: str, pending: bool) -> Job | None:
    words = shlex.split(command)
    if len(words) < 2 or words[0] != "kd" or words[1] not in ORDER:
        return None
    options = {key: value for key, value in pairwise(words[2:]) if key.startswith("--")}
    spec = json.loads(options.pop("--spec", "{}"))
    out = options.pop("--out", "")
    return Job(words[1], spec, tuple(options.values()), out, pending)


def predecessors(jobs: Sequence[Job]) -> list[list[int]]:
    """For each job the positions of the earlier stages' jobs whose outputs it reads.

    A job reads another's output if it is given that path, one inside it, or a folder around it.
    """
    by_path: dict[str, list[int]] = {}
    for index, job in enumerate(jobs):
        by_path.setdefault(job.out, []).append(index)
    paths = sorted(by_path)

    def before(job: Job) -> set[int]:
        found = {
            index for read in job.reads for path in _related(read, paths) for index in by_path[path]
        }
        rank = ORDER.index(job.stage)
        return {index for index in found if ORDER.index(jobs[index].stage) < rank}

    return [sorted(before(job)) for job in jobs]


def _related(path: str, among: Sequence[str]) -> Iterator[str]:
    """Those of the sorted paths `among` that are `path`, around it, or inside it."""
    for around in (path, *map(str, PurePath(path).parents)):
        place = bisect_left(among, around)
        if place < len(among) and among[place] == around:
            yield around
    for other in among[bisect_left(among, f"{path}/") :]:
        if not other.startswith(f"{path}/"):
            return
        yield other
