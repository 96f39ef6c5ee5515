"""What work took in a finished results folder, as `kd plan` ships it for machines without history.

    python benchmarks/plan_reference.py results > kd/plan/reference.json

One line a stage and kind of model and extent: of seconds the median over jobs, of memory the
maximum. On CPU they are
the processor's seconds, so other load does not count.
"""

import json
import sys
from pathlib import Path
from statistics import median

from kd.plan.history import Measured, as_json, read_history
from kd.plan.work import Work


def condensed(history: list[Measured]) -> list[Measured]:
    alike: dict[Work, list[Measured]] = {}
    for one in history:
        if one.work.units:
            alike.setdefault(one.work, []).append(one)
    found = sorted(alike.items(), key=lambda item: (item[0].stage, item[0].traits, item[0].units))
    return [
        Measured(work, round(median(one.seconds for one in jobs), 3), max(j.memory for j in jobs))
        for work, jobs in found
    ]


if __name__ == "__main__":
    history = read_history(Path(sys.argv[1]))
    print(json.dumps({"jobs": len(history), "measured": as_json(condensed(history))}, indent=1))
