"""A kill campaign: random SIGKILLs of a running workflow, and what is left of them at the end.

Snakemake and any process below it (shells, `kd` commands, their worker, its forks) are killed
at random moments of a small experiment, which is then completed. Each run must end in the bytes
of an undisturbed one, with nothing left over, at no more help than `snakemake --unlock`, and no
kill may cost more work than the checkpoint interval.

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
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
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
# The report says how long stages took.
VARYING = re.compile(r"(report\.html|\.cost\.csv|mlflow\.db|\.mlflow\.lock|\.snakemake_timestamp)$")
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

    number: int
    seed: int = 0
    kills: list[Kill] = field(default_factory=list)
    started: float = field(default_factory=time.monotonic)
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
        self.environment.pop("KD_WORKER", None)
        self.began: dict[int, float] = {}  # when a command's work began, by process id

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
            for command in self.commands():
                self._note_beginning(command)
            time.sleep(TICK)
        return process.poll() is None

    def _note_beginning(self, command: psutil.Process) -> None:
        """A stage says how many steps there are when it has loaded all that it needs."""
        if command.pid not in self.began:
            with suppress(OSError):
                log = Path(f"/proc/{command.pid}/fd/2")
                if "steps to do" in log.read_text(encoding="utf-8", errors="replace"):
                    self.began[command.pid] = time.time()

    def below(self, snakemake: int) -> list[psutil.Process]:
        """Shells, `kd` commands, the worker that imports for them, and its forks."""
        found = []
        for process in psutil.process_iter(["cwd", "cmdline", "status"]):
            here = process.info["cwd"] == str(self.folder)
            serves = (process.info["cmdline"] or [])[-2:] == ["kd.worker.server", str(snakemake)]
            if (here or serves) and process.pid != snakemake and process.info["status"] != "zombie":
                found.append(process)
        return found

    def commands(self) -> list[psutil.Process]:
        """The running `kd` commands."""
        return [process for process in self.below(0) if stage_of(process)]

    def content(self) -> dict[str, bytes]:
        """What has to be the same: all results, of manifests the hashed part."""
        results = self.folder / "results"
        found = {}
        for path in sorted(path for path in results.rglob("*") if path.is_file()):
            if VARYING.search(path.name) or "mlruns" in path.parts:
                continue  # folders of random names; what is tracked is compared below
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


def stage_of(process: psutil.Process) -> str:
    """The `kd` command that a process runs, or nothing."""
    with suppress(psutil.Error):
        words = process.cmdline()
        for place, word in enumerate(words[:3]):
            if Path(word).name == "kd" and len(words) > place + 1:
                return words[place + 1]
    return ""


def log_of(process: psutil.Process) -> str:
    """Where a process's errors go: a fork's are those of the command that it stands for."""
    with suppress(OSError):
        return str(Path(f"/proc/{process.pid}/fd/2").readlink())
    return ""


def measure(kill: Kill, ended: list[psutil.Process], workflow: Workflow) -> None:
    """Note what the end of the `kd` commands `ended` costs, just before it."""
    now = time.time()
    for command in ended:
        words, began = command.cmdline(), workflow.began.get(command.pid)
        if "--checkpoints" in words:
            folder = workflow.folder / words[words.index("--checkpoints") + 1]
            kept = [*folder.glob("*/step-*"), *folder.glob("*/journal.jsonl")]
            # Without a beginning it was still loading.
            since = max([began, *(path.stat().st_mtime for path in kept)]) if began else now
            kill.lost_s = max(kill.lost_s or 0.0, round(now - since, 2))
            kill.checkpointed = True
        elif not kill.checkpointed:
            kill.lost_s = max(kill.lost_s or 0.0, round(now - command.create_time(), 2))
    kill.stage = " ".join(stage_of(command) for command in ended)


def strike(
    process: subprocess.Popen[bytes], workflow: Workflow, kill: Kill, rng: random.Random
) -> None:
    """Kill Snakemake or a process below it."""
    below = workflow.below(process.pid)
    if not below or rng.random() < 0.35:
        kill.victim, kill.orphans = "snakemake", len(below)
        process.kill()
        return
    victim, commands = rng.choice(below), workflow.commands()
    try:
        if "kd.worker.server" not in victim.cmdline():
            kill.victim = "command" if stage_of(victim) else victim.name()
            ended = [command for command in commands if command.pid == victim.pid]
        elif victim.cwd() == "/":
            kill.victim, ended = "worker", commands
        else:
            kill.victim = "fork"
            ended = [command for command in commands if log_of(command) == log_of(victim)]
        measure(kill, ended, workflow)
        victim.kill()
    except (psutil.NoSuchProcess, OSError):
        kill.victim = "just ended"


def _strike_again_and_again(
    process: subprocess.Popen[bytes],
    workflow: Workflow,
    outcome: Outcome,
    kills: int,
    delays: Iterator[float],
) -> None:
    """Up to `kills` kills while this Snakemake runs."""
    rng = random.Random(f"{outcome.seed}/{outcome.number}/{outcome.starts}")
    while_planning = rng.random() < 0.15  # most kills shall hit jobs
    while not while_planning and process.poll() is None and not workflow.below(process.pid):
        time.sleep(TICK)
    for _ in range(kills):
        if not workflow.watch(process, next(delays)):
            return
        at = round(time.monotonic() - outcome.started, 1)
        kill = Kill(outcome.number, len(outcome.kills) + 1, at, "")
        strike(process, workflow, kill, rng)
        if kill.victim != "just ended":
            outcome.kills.append(kill)
            print(json.dumps(asdict(kill)), flush=True)


def disturb(workflow: Workflow, outcome: Outcome, delays: Iterator[float], kills: int) -> None:
    """Run to the end, with `kills` kills on the way (fewer if it is done before)."""
    for _ in range(20 * kills):
        process = workflow.start()
        outcome.starts += 1
        _strike_again_and_again(process, workflow, outcome, kills - len(outcome.kills), delays)
        if process.wait() == 0:
            break
        if "--unlock" in workflow.said():
            outcome.unlocks += 1
            unlock = workflow.start("--unlock")
            if unlock.wait() != 0:
                raise SystemExit(f"--unlock failed:\n{workflow.said()}")
    else:
        raise SystemExit(f"run {outcome.number} does not come to its end:\n{workflow.said()}")
    outcome.seconds = round(time.monotonic() - outcome.started, 1)
    while workflow.below(0):
        time.sleep(TICK)


def compare(outcome: Outcome, workflow: Workflow, expected: dict[str, bytes]) -> None:
    found = workflow.content()
    names = sorted(expected.keys() | found.keys())
    outcome.different = [name for name in names if expected.get(name) != found.get(name)]
    outcome.left_over = workflow.left_over()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=50, help="in all")
    parser.add_argument("--per-run", type=int, default=8)
    parser.add_argument("--longest", type=float, default=30, help="seconds between two kills")
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
        delays = iter(lambda: rng.uniform(0.3, options.longest), None)
        outcome = Outcome(number, options.seed)
        disturb(workflow, outcome, delays, options.per_run)
        compare(outcome, workflow, expected)
        outcomes.append(outcome)
        print(
            json.dumps({k: v for k, v in asdict(outcome).items() if k not in ("kills", "started")}),
            flush=True,
        )
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
        "of others": dict(Counter(kill.victim for kill in kills if kill.victim != "snakemake")),
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
