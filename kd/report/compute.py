"""What the results took: jobs, time and memory by stage, from manifests and cost files."""

import csv
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from kd.audit.chain import Artifact
from kd.audit.places import STAGES

_RUN = ("dataset", "teacher", "student", "method", "fraction", "seed")


@dataclass(frozen=True)
class StageCost:
    """One stage: `seconds` add up over its jobs, `memory` (MiB) is the largest job's."""

    stage: str
    jobs: int
    seconds: float
    longest: float
    memory: int


def stage_costs(artifacts: Iterable[Artifact]) -> list[StageCost]:
    """Costs by stage, in the order in which stages follow each other, and of all together."""
    by_stage: dict[str, list[Artifact]] = {}
    for artifact in artifacts:
        if artifact.content:
            by_stage.setdefault(artifact.stage, []).append(artifact)
    found = [_cost(stage, by_stage[stage]) for stage in STAGES if stage in by_stage]
    return [*found, _cost("all", [one for made in by_stage.values() for one in made])]


def _cost(stage: str, made: Sequence[Artifact]) -> StageCost:
    return StageCost(
        stage,
        len(made),
        sum(one.seconds for one in made),
        max((one.seconds for one in made), default=0.0),
        max((int(one.context.get("peak_memory_mib") or 0) for one in made), default=0),
    )


def training_cpu_seconds(files: Iterable[Path]) -> float | None:
    """Processor time of all optimiser steps behind tables; None where it was not measured.

    Args:
        files: the tables' cost files; runs that tables share count once.
    """
    found: dict[tuple[str, ...], float] = {}
    for path in files:
        if path.is_file():
            with path.open(encoding="utf-8", newline="") as file:
                for line in csv.DictReader(file):
                    run = tuple(str(line.get(axis)) for axis in _RUN)
                    seconds = _seconds(line)
                    if seconds is not None:
                        found[run] = seconds
    return sum(found.values()) if found else None


def _seconds(line: dict[str, str]) -> float | None:
    try:
        return float(line["steps"]) * float(line["cpu_seconds_per_step"])
    except (KeyError, TypeError, ValueError):
        return None


def duration(seconds: float) -> str:
    """Seconds as hours, minutes or seconds, whatever reads best."""
    if seconds >= 3600:
        return f"{seconds / 3600:.1f} h"
    return f"{seconds / 60:.1f} min" if seconds >= 60 else f"{seconds:.1f} s"
