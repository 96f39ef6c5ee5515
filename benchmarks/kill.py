"""A kill campaign: random SIGKILLs of a running workflow, and what is left of them at the end.

Workers (any process below Snakemake) and Snakemake itself are killed at random moments of a
small experiment, which is then completed. Each run must end in the bytes of an undisturbed
one, with nothing left over, at no more help than `snakemake --unlock`, and no kill may cost
more work than the checkpoint interval.

    python benchmarks/kill.py --kills 50 --out kill.csv
"""

import argparse
import csv
import json
import os
import random
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path

import psutil

ROOT = Path(__file__).resolve().parents[1]
PARTS = ("Snakefile", "kd", "rules", "profiles", "experiments", "pyproject.toml")
EXPERIMENT = """\
# `smoke`, cut short.
extends: smoke.yaml
name: kill
datasets:
  squad: {splits: {train: 64, validation: 16, test: 24, pretraining: 200}}
teachers:
  llama: {pretraining: {steps: 60, rows: 200}}
students:
  opt: {pretraining: {steps: 40, rows: 200}}
generation: {max_new_tokens: 16, batch_size: 4}
"""
INTERVAL = 2.0  # seconds between checkpoints
# Checkpoints cost at most a twentieth of the time: a save of 0.1 s makes the interval 2 s.
SLACK = 3.0  # seconds: a step in hand on a busy machine, and the save itself
# Not hashed: what a run cost, its database, and files of Snakemake and locks that stay.
VARYING = re.compile(r"(\.cost\.csv|mlflow\.db|\.mlflow\.lock|\.snakemake_timestamp)$")
TICK = 0.05


@dataclass
class Kill:
    """One SIGKILL. `lost_s`: work since the last checkpoint (or the start of the work)."""

    run: int
    number: int
    at_s: float
    victim: str
    stage: str = ""
    checkpointed: bool = False
    lost_s: float | None = None
    orphans: int = 0


@dataclass
class Outcome:
    """How a run ended after its kills."""

    kills: list[Kill]
    unlocks: int = 0
    starts: int = 0
    seconds: float = 0.0
    different: list[str] = field(default_factory=list)
    left_over: list[str] = field(default_factory=list)


class Workflow:
    """A checkout of its own, in which Snakemake is started and killed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True)
        for part in PARTS:
            copy = shutil.copytree if (ROOT / part).is_dir() else shutil.copy
            copy(ROOT / part, folder / part)
        (folder / "experiments/kill.yaml").write_text(EXPERIMENT, encoding="utf-8")
        self.log = folder / "snakemake.log"
        self.environment = os.environ | {
            "PYTHONPATH": str(folder),
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "KD_CHECKPOINT_SECONDS": str(INTERVAL),
        }
        self.began: dict[int, float] = {}  # when a worker's work began, by process id

    def start(self, *arguments: str) -> subprocess.Popen[bytes]:
        command = ["snakemake", "--workflow-profile", "profiles/default", "--cores", "2"]
        command += [*arguments, "--config", "experiment=kill"]
        with self.log.open("wb") as log:
            return subprocess.Popen(
                command,
                cwd=self.folder,
                env=self.environment,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def said(self) -> str:
        return self.log.read_text(encoding="utf-8", errors="replace")

    def watch(self, process: subprocess.Popen[bytes], seconds: float) -> bool:
        """Wait; whether Snakemake still runs after that."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if process.poll() is not None:
                return False
            for worker in descendants(process.pid):
                self._note_beginning(worker)
            time.sleep(TICK)
        return process.poll() is None

    def _note_beginning(self, worker: psutil.Process) -> None:
        """A stage says how many steps there are when it has loaded all that it needs."""
        if worker.pid not in self.began and stage_of(worker):
            log = Path(f"/proc/{worker.pid}/fd/2")
            try:
                begun = "steps to do" in log.read_text(encoding="utf-8", errors="replace")
            except OSError:
                return
            if begun:
                self.began[worker.pid] = time.time()

    def orphans(self) -> list[psutil.Process]:
        """Processes that live on in this checkout."""
        found = []
        for process in psutil.process_iter(["cwd"]):
            if process.info["cwd"] == str(self.folder) and process.status() != "zombie":
                found.append(process)
        return found

    def content(self) -> dict[str, bytes]:
        """What has to be the same: all results, of manifests the hashed part."""
        results = self.folder / "results"
        found = {}
        for path in sorted(path for path in results.rglob("*") if path.is_file()):
            if VARYING.search(path.name):
                continue
            text = path.read_bytes()
            if path.name.endswith("manifest.json"):
                manifest = json.loads(text)
                text = json.dumps([manifest["identity"], manifest["hashed"]]).encode()
            found[path.relative_to(results).as_posix()] = text
        found["mlflow runs"] = json.dumps(self._tracked()).encode()
        return found

    def _tracked(self) -> list[tuple[str, str]]:
        query = (
            "select a.value, b.value from runs r"
            " join tags a on a.run_uuid = r.run_uuid and a.key = 'kd.path'"
            " join tags b on b.run_uuid = r.run_uuid and b.key = 'kd.identity'"
            " where r.lifecycle_stage = 'active' and r.status = 'FINISHED'"
        )
        with sqlite3.connect(self.folder / "results/kill/mlflow.db") as database:
            return sorted(database.execute(query))

    def left_over(self) -> list[str]:
        """Half-written files, locks, checkpoints, and marks of Snakemake."""
        hidden = list((self.folder / "results").rglob(".*"))
        files = [path for path in hidden if not VARYING.search(path.name)]
        for place in ("checkpoints", ".snakemake/locks", ".snakemake/incomplete"):
            files += [path for path in (self.folder / place).rglob("*") if path.is_file()]
        return [path.relative_to(self.folder).as_posix() for path in files]


def descendants(pid: int) -> list[psutil.Process]:
    try:
        return psutil.Process(pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def stage_of(process: psutil.Process) -> str:
    """The `kd` command that a process runs, or nothing."""
    try:
        words = process.cmdline()
    except psutil.Error:
        return ""
    places = [place for place, word in enumerate(words[:3]) if Path(word).name == "kd"]
    return words[places[0] + 1] if places and len(words) > places[0] + 1 else ""


def measure(kill: Kill, victim: psutil.Process, workflow: Workflow) -> None:
    """Note what the death of `victim` costs, just before it."""
    words, now = victim.cmdline(), time.time()
    began = workflow.began.get(victim.pid)
    kill.checkpointed = "--checkpoints" in words
    if not kill.checkpointed:
        kill.lost_s = round(now - victim.create_time(), 2)
    elif began is None:
        kill.lost_s = 0.0  # it was still loading
    else:
        folder = workflow.folder / words[words.index("--checkpoints") + 1]
        kept = [*folder.glob("*/step-*"), *folder.glob("*/journal.jsonl")]
        kill.lost_s = round(now - max([began, *(path.stat().st_mtime for path in kept)]), 2)


def strike(
    process: subprocess.Popen[bytes], workflow: Workflow, kill: Kill, rng: random.Random
) -> None:
    """Kill Snakemake or a process below it."""
    below = descendants(process.pid)
    if not below or rng.random() < 0.4:
        kill.victim, kill.orphans = "snakemake", len(below)
        process.kill()
        return
    victim = rng.choice(below)
    try:
        kill.stage = stage_of(victim)
        kill.victim = "worker" if kill.stage else victim.name()
        if kill.stage:
            measure(kill, victim, workflow)
        victim.kill()
    except psutil.NoSuchProcess:
        kill.victim = "just ended"


def disturbed(workflow: Workflow, number: int, delays: Iterator[float], kills: int) -> Outcome:
    """Run to the end, with `kills` kills on the way (fewer if it is done before)."""
    rng = random.Random(f"{number}")
    outcome = Outcome([])
    started = time.monotonic()
    for _ in range(20 * kills):
        process = workflow.start()
        outcome.starts += 1
        while len(outcome.kills) < kills and workflow.watch(process, next(delays)):
            at = round(time.monotonic() - started, 1)
            kill = Kill(number, len(outcome.kills) + 1, at, "")
            strike(process, workflow, kill, rng)
            if kill.victim != "just ended":
                outcome.kills.append(kill)
                print(json.dumps(asdict(kill)), flush=True)
        if process.wait() == 0:
            break
        if "--unlock" in workflow.said():
            outcome.unlocks += 1
            unlock = workflow.start("--unlock")
            if unlock.wait() != 0:
                raise SystemExit(f"--unlock failed:\n{workflow.said()}")
    else:
        raise SystemExit(f"run {number} does not come to its end:\n{workflow.said()}")
    outcome.seconds = round(time.monotonic() - started, 1)
    while workflow.orphans():
        time.sleep(TICK)
    return outcome


def compare(outcome: Outcome, workflow: Workflow, expected: dict[str, bytes]) -> None:
    found = workflow.content()
    names = sorted(expected.keys() | found.keys())
    outcome.different = [name for name in names if expected.get(name) != found.get(name)]
    outcome.left_over = workflow.left_over()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=50, help="in all")
    parser.add_argument("--per-run", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("kill.csv"))
    parser.add_argument("--keep", type=Path, help="folder for the checkouts, kept afterwards")
    options = parser.parse_args()
    rng = random.Random(options.seed)
    base = Path(options.keep or tempfile.mkdtemp(prefix="kd-kill-")).resolve()
    reference = Workflow(base / "reference")
    begun = time.monotonic()
    if reference.start().wait() != 0:
        raise SystemExit(reference.said())
    undisturbed = time.monotonic() - begun
    print(f"undisturbed: {undisturbed:.0f} s", flush=True)
    expected = reference.content()
    outcomes: list[Outcome] = []
    while sum(len(outcome.kills) for outcome in outcomes) < options.kills:
        number = len(outcomes) + 1
        workflow = Workflow(base / f"run{number}")
        delays = iter(lambda: rng.uniform(0.5, 1.6 * undisturbed / options.per_run), None)
        outcome = disturbed(workflow, number, delays, options.per_run)
        compare(outcome, workflow, expected)
        outcomes.append(outcome)
        print(json.dumps({k: v for k, v in asdict(outcome).items() if k != "kills"}), flush=True)
        if not options.keep and not outcome.different:
            shutil.rmtree(workflow.folder)
    report(outcomes, options.out)


def report(outcomes: list[Outcome], out: Path) -> None:
    kills = [kill for outcome in outcomes for kill in outcome.kills]
    with out.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, [entry.name for entry in fields(Kill)], lineterminator="\n")
        writer.writeheader()
        writer.writerows(asdict(kill) for kill in kills)
    lost = [kill.lost_s or 0.0 for kill in kills if kill.checkpointed]
    summary = {
        "runs": len(outcomes),
        "kills": len(kills),
        "of Snakemake": sum(kill.victim == "snakemake" for kill in kills),
        "of workers": sum(kill.victim == "worker" for kill in kills),
        "starts": sum(outcome.starts for outcome in outcomes),
        "unlocks": sum(outcome.unlocks for outcome in outcomes),
        "most work lost, s": max(lost, default=0.0),
        "checkpoint interval, s": INTERVAL,
        "files that differ": sum(len(outcome.different) for outcome in outcomes),
        "files left over": sum(len(outcome.left_over) for outcome in outcomes),
    }
    print(json.dumps(summary, indent=1))
    failed = summary["files that differ"] or summary["files left over"]
    if failed or summary["most work lost, s"] > INTERVAL + SLACK:
        raise SystemExit("the campaign failed")


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    main()
