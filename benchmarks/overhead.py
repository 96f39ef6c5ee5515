"""How much of a finished run's time was spent in stages, and how much around them?

Two ratios. `jobs`: of the seconds that jobs lasted, as Snakemake's metadata have them, the share
that no stage's manifest accounts for: starting a process and importing. `wall`: of cores times
seconds by the clock, the share outside of stages: that, Snakemake itself, and cores without work
while the last jobs end.

    python benchmarks/overhead.py micro --wall 2540 --cores 2
"""

import argparse
import json
from pathlib import Path

# A manifest's seconds begin when inputs are verified and end when outputs are listed.
STAGES = ("data", "pretrain", "answer", "extract", "distill", "predict", "score")


def inside(results: Path) -> dict[str, tuple[int, float]]:
    """Jobs and seconds of each stage, from its manifests."""
    found = {}
    for stage in STAGES:
        paths = [p for p in results.rglob(f"{stage}.manifest.json") if "mlruns" not in p.parts]
        manifests = [json.loads(path.read_text()) for path in paths]
        seconds = [one["context"]["seconds"] for one in manifests]
        found[stage] = (len(seconds), sum(seconds))
    return found


def job_seconds(experiment: str) -> dict[str, float]:
    """Seconds of the last run of each job, by its log; a job notes them for each of its outputs."""
    found = {}
    for path in Path(".snakemake", "metadata").rglob("*"):
        noted = json.loads(path.read_text()) if path.is_file() else {"log": []}
        for log in noted["log"]:
            if Path(log).is_relative_to(Path("logs", experiment)):
                found[log] = noted["endtime"] - noted["starttime"]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("experiment")
    parser.add_argument("--wall", type=float, required=True, help="seconds of the whole run")
    parser.add_argument("--cores", type=int, default=2)
    options = parser.parse_args()
    stages = inside(Path("results", options.experiment))
    jobs = job_seconds(options.experiment)
    total = sum(seconds for _, seconds in stages.values())
    print("| stage | jobs | seconds in stages |\n|---|---|---|")
    for stage, (count, seconds) in stages.items():
        print(f"| {stage} | {count} | {seconds:.0f} |")
    print(f"| all | {sum(count for count, _ in stages.values())} | {total:.0f} |\n")
    outside_jobs = 1 - total / sum(jobs.values())
    outside_wall = 1 - total / (options.cores * options.wall)
    print(f"Around stages, of {len(jobs)} jobs' time: {outside_jobs:.1%}.")
    print(f"Around stages, of {options.cores} x {options.wall:.0f} s: {outside_wall:.1%}.")


if __name__ == "__main__":
    main()
