"""What the runs of a table cost: time per step and memory, from their manifests.

Measured, so never the same twice: it lies beside the table, outside all that is hashed.
"""

import csv
import io
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from kd.experiment.layout import Run
from kd.experiment.stages import TableSpec
from kd.provenance.manifest import read_manifest

COLUMNS = [
    "steps",
    "seconds_per_step",
    "cpu_seconds_per_step",
    "job_seconds",
    "peak_memory_mib",
    "host",
]


@dataclass(frozen=True)
class Cost:
    """One distillation's cost. `job_seconds` includes loading and validation.

    On a busy machine the time of the processor tells more than that of the clock.
    """

    steps: int
    seconds_per_step: float
    cpu_seconds_per_step: float
    job_seconds: float
    peak_memory_mib: int
    host: str


def render_costs(spec: TableSpec, results: Path) -> str:
    """csv: one line for each run that the table rests on.

    Raises:
        ArtifactError: a run's manifest is missing or was altered.
    """
    text = io.StringIO()
    axes = ["dataset", "teacher", "student", "method", "fraction", "seed"]
    writer = csv.DictWriter(text, [*axes, *COLUMNS], lineterminator="\n")
    writer.writeheader()
    for run in spec.runs():
        writer.writerow(asdict(run) | asdict(_cost(run, results)))
    return text.getvalue()


def _cost(run: Run, results: Path) -> Cost:
    manifest: dict[str, Any] = read_manifest(results / run.path / "distill.manifest.json")
    notes, context = manifest["notes"], manifest["context"]
    return Cost(
        steps=notes["steps"],
        seconds_per_step=notes["seconds_per_step"],
        cpu_seconds_per_step=notes["cpu_seconds_per_step"],
        job_seconds=context["seconds"],
        peak_memory_mib=context["peak_memory_mib"],
        host=context["host"],
    )
