"""Times and memory on a machine that others use too.

Times are taken in interleaved rounds, so that a busy minute falls on all alike, and are given as
CPU seconds of the process beside wall seconds: with one thread and nothing else running both are
equal, and CPU seconds stay so under load. Ratios are ratios of minima; their spread is that of the
rounds. Memory is that of a fresh process, or of a copy of this one.
"""

import ctypes
import gc
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

STATUS = Path("/proc/self/status")
PEAK_RESET = Path("/proc/self/clear_refs")


@dataclass
class Times:
    """Seconds of one implementation, one entry a round."""

    cpu: list[float] = field(default_factory=list)
    wall: list[float] = field(default_factory=list)

    def ratio(self, baseline: "Times") -> tuple[float, float, float]:
        """How many times faster than `baseline`: by the minima, and the least and most by round."""
        by_round = [theirs / ours for theirs, ours in zip(baseline.cpu, self.cpu, strict=True)]
        return min(baseline.cpu) / min(self.cpu), min(by_round), max(by_round)

    def row(self) -> dict[str, float]:
        """Milliseconds, for a table."""
        return {
            "cpu_min_ms": 1e3 * min(self.cpu),
            "cpu_median_ms": 1e3 * statistics.median(self.cpu),
            "cpu_max_ms": 1e3 * max(self.cpu),
            "wall_min_ms": 1e3 * min(self.wall),
            "wall_median_ms": 1e3 * statistics.median(self.wall),
        }


def interleaved(
    prepare: dict[str, Callable[[], Callable[[], object]]], rounds: int
) -> dict[str, Times]:
    """Times of what each of `prepare` returns, which is made anew and untimed before each run."""
    times = {name: Times() for name in prepare}
    for number in range(rounds):
        for name, make in prepare.items():
            run = make()
            gc.collect()  # or what came before is freed on this one's time
            wall, cpu = time.perf_counter(), time.process_time()
            run()
            times[name].cpu.append(time.process_time() - cpu)
            times[name].wall.append(time.perf_counter() - wall)
        print(f"round {number + 1} of {rounds}, load {load()}", file=sys.stderr, flush=True)
    return times


def peak_of(run: Callable[[], object]) -> float:
    """MiB by which the resident memory of this process grows at most while `run` runs."""
    # What preparing freed must go back to the system, or the run takes it unseen.
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # of glibc
    if trim is not None:
        trim(0)
    if os.access(PEAK_RESET, os.W_OK):
        PEAK_RESET.write_text("5")  # what preparing took does not count
    before = _status("VmRSS")
    run()
    return (_status("VmHWM") - before) / 1024


def peak_in_fresh_process(*command: str) -> float:
    """The number that `python command` prints on its last line."""
    done = subprocess.run(
        [sys.executable, *command], capture_output=True, text=True, check=True, env=environment()
    )
    return float(json.loads(done.stdout.splitlines()[-1]))


def peak_in_fork(peak: Callable[[], float]) -> float:
    """The number that `peak` gives in a copy of this process, which has all that is loaded here."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.write(write, json.dumps(peak()).encode())
        finally:
            os._exit(0)
    os.close(write)
    with os.fdopen(read) as answer:
        found = answer.read()
    os.waitpid(child, 0)
    return float(json.loads(found))


def environment() -> dict[str, str]:
    """The environment of a child, with the project in its path."""
    root = str(Path(__file__).resolve().parents[1])
    return os.environ | {"PYTHONPATH": os.pathsep.join([root, os.environ.get("PYTHONPATH", "")])}


def print_markdown(head: list[str], rows: Iterable[list[str]], conditions: str) -> None:
    """A table in Markdown, and what its figures depend on."""
    print("| " + " | ".join(head) + " |")
    print("|" + "---|" * len(head))
    for row in rows:
        print("| " + " | ".join(row) + " |")
    print(f"\n{conditions}\n", flush=True)


def conditions(header: Mapping[str, str | int], rounds: int, load_at_end: str) -> str:
    """Machine, load, threads and rounds in a line; `header` is from `machine`."""
    return (
        f"{header['cpu']}, {header['cores']} cores, {header['threads']} thread(s), load "
        f"{header['load']} to {load_at_end}, {rounds} rounds; minima of CPU time, ratios of minima "
        "(least to most of the rounds)"
    )


def load() -> str:
    """Load average of the last minute."""
    return f"{os.getloadavg()[0]:.1f}"


def machine(threads: int) -> dict[str, str | int]:
    """What the figures depend on beside the code."""
    import numpy
    import torch

    lines = Path("/proc/cpuinfo").read_text().splitlines()
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return {
        "cpu": models[0] if models else platform.processor(),
        "cores": os.cpu_count() or 0,
        "threads": threads,
        "torch": torch.__version__,
        "numpy": numpy.__version__,
        "load": load(),
    }


def _status(key: str) -> int:
    """KiB."""
    (line,) = [text for text in STATUS.read_text().splitlines() if text.startswith(key)]
    return int(line.split()[1])
