"""Does the work on finished runs grow with their number, and no faster?

Fabricates results folders of up to 5,000 finished runs (the real stages' manifests, small
files instead of models) and times the commands that read them all,
each as a process of its own: CPU seconds (user and system), seconds by the clock, memory.

    python benchmarks/scale.py --runs 500 1000 2000 5000 --out scale.csv
"""

import argparse
import csv
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import patch

import yaml

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from kd.experiment import stages  # noqa: E402
from kd.experiment.expansion import all_runs  # noqa: E402
from kd.experiment.layout import native_path, teacher_path  # noqa: E402
from kd.experiment.loading import load_experiment  # noqa: E402
from kd.provenance.canonical import canonical_json  # noqa: E402
from tests.audit import fabrication  # noqa: E402
from tests.audit.fabrication import DATASET, STUDENT, TEACHER, Plan, World, recorded_as  # noqa: E402

SEEDS = 10
METHODS = {
    "teacher_text": {"loss": "none"},
    **{f"uld{weight}": {"loss": "uld", "weight": float(weight)} for weight in range(1, 5)},
}
RUNS_A_LINE = SEEDS * len(METHODS)
_RESULTS = "--results results/tiny"
_TRACK = f"kd track --table results/tiny/tables/table2.json {_RESULTS} --out tracked.json"
COMMANDS = {
    "table": f"kd table --spec table.json {_RESULTS} --out results/tiny/tables",
    "track": _TRACK,
    "track again": _TRACK,
    "audit": "kd audit experiment tiny",
    "show": "kd show results/table2.csv",
    "chart": f"kd chart --spec chart.json {_RESULTS} --out results/tiny/tables",
    "report": f"kd report --spec report.json {_RESULTS} --out results/tiny/report.html",
}


@contextmanager
def without_fsync() -> Iterator[None]:
    """Fabricated files need not survive a power cut."""
    with patch.object(os, "fsync", lambda _: None):
        yield


def fabricate(root: Path, runs: int) -> World:
    """A checkout with `runs` finished runs: a line for each share of the training rows."""
    lines = runs // RUNS_A_LINE
    declared = fabrication.EXPERIMENT | {
        "methods": METHODS,
        "seeds": list(range(SEEDS)),
        "tables": {
            "table2": {
                "title": "Scale",
                "rows": ["dataset", "teacher", "student", "fraction"],
                "fractions": list(range(1, lines + 1)),
            }
        },
    }
    for key in ("published", "claims"):
        declared.pop(key, None)
    fabrication.SKILL.update(dict.fromkeys(METHODS, 0.6))
    world = World(root)
    world.file.parent.mkdir(parents=True)
    world.file.write_text(yaml.safe_dump(declared), encoding="utf-8")
    experiment = load_experiment(world.file)
    with recorded_as(Plan()), without_fsync():
        made = fabrication._Stages(world, experiment, Plan())
        splits = made.data()
        made.pretrain(TEACHER)
        made.pretrain(STUDENT)
        made.answer(splits)
        made.extract()
        made.evaluate("teacher", teacher_path(TEACHER, DATASET), TEACHER, 1, splits)
        made.evaluate("native", native_path(DATASET, STUDENT), STUDENT, 1, splits)
        for run in all_runs(experiment):
            made.distill(run)
            made.evaluate(run.method, run.path, None, 0, splits, run.seed)
    for name, spec in {
        "table": stages.table_spec(experiment, "table2"),
        "chart": stages.chart_spec(experiment, "table2"),
        "report": stages.report_spec(experiment),
    }.items():
        text = canonical_json(spec.model_dump(mode="json"))
        (root / f"{name}.json").write_text(text, encoding="utf-8")
    shutil.copy(ROOT / "requirements.lock", root)
    return world


def measure(command: str, folder: Path) -> dict[str, float]:
    """Run a command; what it took."""
    environment = os.environ | {
        "PYTHONPATH": str(ROOT),
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    }
    started = time.monotonic()
    with (folder / "said.txt").open("w", encoding="utf-8") as said:
        process = subprocess.Popen(
            command.split(), cwd=folder, env=environment, stdout=said, stderr=subprocess.STDOUT
        )
        _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    # The audit of a fabricated world has findings: status 1.
    if process.returncode not in ((0, 1) if "audit" in command else (0,)):
        raise SystemExit(f"{command}:\n{(folder / 'said.txt').read_text()[-2000:]}")
    return _used(used) | {"wall_s": round(time.monotonic() - started, 1)}


def _used(used: resource.struct_rusage) -> dict[str, float]:
    return {
        "cpu_s": round(used.ru_utime + used.ru_stime, 2),
        "memory_mib": used.ru_maxrss // 1024,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, nargs="+", default=[500, 1000, 2000, 5000])
    parser.add_argument("--commands", nargs="+", choices=COMMANDS, default=list(COMMANDS))
    parser.add_argument("--out", type=Path, default=Path("scale.csv"))
    options = parser.parse_args()
    names = ["runs", "command", "cpu_s", "wall_s", "memory_mib", "cpu_ms_per_run"]
    with options.out.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, names, lineterminator="\n")
        writer.writeheader()
        for runs in options.runs:
            with tempfile.TemporaryDirectory(prefix="kd-scale-") as folder:
                root = Path(folder) / "checkout"
                world = fabricate(root, runs)
                for name in ["table", *(n for n in options.commands if n != "table")]:
                    found = measure(COMMANDS[name], root)
                    per_run = round(1000 * found["cpu_s"] / runs, 2)
                    row = {"runs": runs, "command": name, **found, "cpu_ms_per_run": per_run}
                    writer.writerow(row)
                    file.flush()
                    print(row, flush=True)
                    if name == "table":
                        fabrication.copy_table(world)


if __name__ == "__main__":
    main()
