"""The store of teacher logits: bytes per token, rates of writing and reading, cost of extraction.

    python benchmarks/logit_store.py                           # in about ten minutes
    python benchmarks/logit_store.py --results results/micro   # and on that experiment's teachers
    python benchmarks/logit_store.py --quick                   # small sizes, to see that it runs

Prints tables, and writes `logit_store_sizes.csv`, `logit_store_rates.csv` and (with matplotlib)
a plot to `--out`. What is measured is in `logit_store_workload.py`.

Bytes are those of all files of a store, index included. Beside them stand the dense distributions
in 16 bits and the likeliest 100 tokens as int32 and fp16. Rates are answer tokens per CPU second;
what training consumes is counted in whole steps of the smallest student, without validation.
"""

import argparse
import csv
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

HERE = Path(__file__).resolve()
sys.path.insert(0, str(HERE.parents[1]))

import torch  # noqa: E402
from logit_store_workload import (  # noqa: E402
    EPSILONS,
    FULL,
    LEVELS,
    QUICK,
    Workload,
    sizes_of_level,
    sizes_of_teacher,
)
from measuring import conditions, interleaved, load, machine, print_markdown  # noqa: E402

Row = dict[str, str | int | float]
GOAL_KEPT, GOAL_WITH, GOAL_WITHOUT = 25, 150, 60
RIVALS = (114, 300)  # bytes per token that other systems state


def main() -> None:
    options = parse_options()
    torch.set_num_threads(options.threads)
    size = QUICK if options.quick else FULL
    header = machine(options.threads)
    with TemporaryDirectory() as scratch:
        sizes = measured_sizes(options, Path(scratch))
        rates = measured_rates(size, 1 if options.quick else options.rounds, Path(scratch))
    last = header | {"load_at_end": load()}
    options.out.mkdir(parents=True, exist_ok=True)
    write_csv([row | last for row in sizes], options.out / "logit_store_sizes.csv")
    write_csv([row | last for row in rates], options.out / "logit_store_rates.csv")
    print_sizes(sizes)
    print_rates(rates, conditions(header, int(rates[0]["rounds"]), load()))
    plot(sizes, options.out)


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="small sizes, one round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--results", type=Path, help="folder of an experiment that has teachers")
    parser.add_argument("--out", type=Path, default=Path("results/benchmarks"))
    return parser.parse_args()


def measured_sizes(options: argparse.Namespace, scratch: Path) -> list[Row]:
    found: list[Row] = []
    for level in LEVELS[:2] if options.quick else LEVELS:
        print(f"sizes: {level.name}", file=sys.stderr, flush=True)
        found += sizes_of_level(level, 64 if options.quick else 2048, scratch)
    if options.results is not None:
        for answers in sorted(options.results.glob("teachers/*/*/answers.parquet")):
            name = "/".join(answers.parent.parts[-2:])
            print(f"sizes: {name}", file=sys.stderr, flush=True)
            model = options.results / "models" / answers.parent.parent.name / "model"
            found += sizes_of_teacher(name, model, answers, scratch)
    return found


def measured_rates(size: object, rounds: int, scratch: Path) -> list[Row]:
    found: list[Row] = []
    for pair in size:
        print(f"rates: {pair.name}", file=sys.stderr, flush=True)
        work = Workload(pair, scratch)
        times = interleaved(work.prepare, rounds)
        step, whole = times["training"], times["forward, whole"]
        for name, time in times.items():
            row: Row = {"pair": pair.name, "what": name, **time.row()}
            row["tokens_per_second"] = work.tokens[name] / min(time.cpu)
            row["x_training"] = row["x_low"] = row["x_high"] = row["overhead"] = ""
            if name in ("write", "read"):
                scale = work.tokens[name] / work.tokens["training"]
                ratio = [scale * value for value in time.ratio(step)]
                row["x_training"], row["x_low"], row["x_high"] = ratio
            if name == "extraction":
                row["overhead"] = 1 / time.ratio(times["forward, answers"])[0] - 1
                row["overhead_whole"] = 1 / time.ratio(whole)[0] - 1
            found.append({"overhead_whole": "", **row, "rounds": rounds})
    return found


def print_sizes(rows: list[Row]) -> None:
    head = (
        "teacher, V, epsilon, mean K, max K, bytes with ids, without, an entry, x dense fp16, "
        "top-100, goal"
    )
    lines = [
        [
            row["teacher"],
            str(row["vocabulary"]),
            f"{row['epsilon']:.0e}",
            f"{row['mean_k']:.1f}",
            str(row["max_k"]),
            f"{row['with_ids']:.1f}",
            f"{row['without_ids']:.1f}",
            f"{row['per_entry']:.2f}",
            f"{row['dense_fp16'] / row['with_ids']:.0f}",
            str(row["top_100"]),
            goal(row),
        ]
        for row in rows
    ]
    print_markdown(
        head.split(", "),
        lines,
        f"bytes per answer token. Goal at epsilon {EPSILONS[0]:.0e} and mean K <= {GOAL_KEPT}: "
        f"<= {GOAL_WITH} with ids, <= {GOAL_WITHOUT} without. Others state "
        f"{RIVALS[0]} to {RIVALS[1]}.",
    )


def goal(row: Row) -> str:
    if row["epsilon"] != EPSILONS[0] or row["mean_k"] > GOAL_KEPT:
        return ""
    met = row["with_ids"] <= GOAL_WITH and row["without_ids"] <= GOAL_WITHOUT
    return "met" if met else "MISSED"


def print_rates(rows: list[Row], done: str) -> None:
    lines = []
    for row in rows:
        ratio = row["x_training"]
        shown = f"{ratio:.0f} ({row['x_low']:.0f} to {row['x_high']:.0f})" if ratio != "" else ""
        over = [
            f"{row[key]:+.1%}" if row[key] != "" else "" for key in ("overhead", "overhead_whole")
        ]
        lines.append(
            [
                *(row["pair"], row["what"]),
                *(f"{row[key]:.1f}" for key in ("cpu_min_ms", "cpu_median_ms")),
                f"{row['tokens_per_second']:.0f}",
                *(shown, *over),
            ]
        )
    head = "pair, what, CPU ms, median, tokens/s, x training, over forward, over whole one"
    print_markdown(head.split(", "), lines, done)


def write_csv(rows: list[Row], path: Path) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def plot(rows: list[Row], folder: Path) -> None:
    """Bytes per token over the mean number of kept tokens, with the goals."""
    try:
        import matplotlib
    except ImportError:
        print("no plot: the extra 'bench' is not installed", file=sys.stderr)
        return
    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 4.5), layout="constrained")
    kept = [row["mean_k"] for row in rows]
    axes.scatter(kept, [row["with_ids"] for row in rows], label="with ids", s=16)
    axes.scatter(kept, [row["without_ids"] for row in rows], label="without ids", s=16)
    axes.axhspan(*RIVALS, color="tab:grey", alpha=0.2, label="stated by others")
    axes.axhline(rows[0]["top_100"], color="tab:grey", ls=":", label="top-100, int32 and fp16")
    for bytes_per_token, colour in ((GOAL_WITH, "tab:blue"), (GOAL_WITHOUT, "tab:orange")):
        axes.plot([1, GOAL_KEPT], [bytes_per_token] * 2, color=colour, lw=1)
    axes.set(xscale="log", yscale="log", xlabel="kept tokens, mean", ylabel="bytes per token")
    axes.legend(fontsize=8)
    for ending in ("svg", "png"):
        figure.savefig(folder / f"logit_store.{ending}", dpi=150)


if __name__ == "__main__":
    main()
