"""Losses, forward and backward to dense gradients: against other code, plain autograd, the floor.

    python benchmarks/losses.py            # all of it, in 5 to 8 minutes
    python benchmarks/losses.py --quick    # small sizes, only to see that it runs
    python benchmarks/losses.py --losses uld forward_kl

Prints a table, and writes `losses.csv` and (with matplotlib) plots of it to `--out`. The
baselines are in `loss_baselines.py`, the workload is in `loss_workload.py`. The floor is one pass
over memory: each logit that the loss needs is read and its exponential taken once, and one
gradient is written to memory that nobody has touched before.

Errors are relative, of the loss and of its gradient (in the Euclidean norm), against the plain
function in float64 on the same teacher.
"""

import argparse
import csv
import os
import sys
from functools import partial
from pathlib import Path

HERE = Path(__file__).resolve()
sys.path.insert(0, str(HERE.parents[1]))

import torch  # noqa: E402
from loss_baselines import gold  # noqa: E402
from loss_workload import (  # noqa: E402
    AUTHORS,
    FLOOR,
    GOLD,
    OURS,
    PLAIN,
    QUICK,
    Implementation,
    Size,
    implementations,
)
from measuring import (  # noqa: E402
    Times,
    conditions,
    interleaved,
    load,
    machine,
    peak_in_fork,
    peak_of,
    print_markdown,
)

Row = dict[str, str | int | float]
BASELINES = {"x_authors": AUTHORS, "x_gold": GOLD, "x_plain": PLAIN}


def main() -> None:
    options = parse_options()
    torch.set_num_threads(options.threads)
    size = QUICK if options.quick else Size()
    chosen = [
        one
        for one in implementations(with_gold=not options.quick and gold_is_there())
        if one.how == FLOOR or one.loss in (options.losses or (one.loss,))
    ]
    header = machine(options.threads)
    rounds = 1 if options.quick else options.rounds
    times = interleaved({str(one): partial(one.prepare, size) for one in chosen}, rounds)
    errors = errors_against_float64(chosen, size)
    rows = [
        {
            **{"loss": one.loss, "teacher": one.teacher, "implementation": one.how},
            **times[str(one)].row(),
            **ratios(one, times),
            **errors[one],
            "peak_mib": peak_in_fork(partial(peak_memory, one, size)),
            **header,
            "load_at_end": load(),
            "rounds": rounds,
        }
        for one in chosen
    ]
    options.out.mkdir(parents=True, exist_ok=True)
    write_csv(rows, options.out / "losses.csv")
    print_table(rows)
    plot(rows, options.out)


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="small sizes, one round")
    parser.add_argument("--losses", nargs="+", help="only these")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("results/benchmarks"))
    return parser.parse_args()


def gold_is_there() -> bool:
    try:
        gold()
    except ImportError as error:
        print(f"{GOLD} is left out, the extra 'bench' is not installed: {error}", file=sys.stderr)
        return False
    return True


def peak_memory(one: Implementation, size: Size) -> float:
    """MiB that one forward and backward take beyond its inputs, dense gradient included."""
    one.prepare(QUICK)()  # what is loaded and allocated once is no cost of this call
    return peak_of(one.prepare(size))


def ratios(one: Implementation, times: dict[str, Times]) -> Row:
    """How many times faster than each baseline, with the least and the most of all rounds."""
    found: Row = {}
    for column, how in BASELINES.items():
        teacher = one.teacher if how == PLAIN else "dense"
        baseline = times.get(str(Implementation(one.loss, teacher, how)))
        for suffix, value in zip(
            ("", "_low", "_high"),
            times[str(one)].ratio(baseline) if baseline else ("", "", ""),
            strict=True,
        ):
            found[column + suffix] = value
    floor = ("forward_kl", "dense") if one.loss != "uld" and one.teacher == "dense" else None
    floor = floor or ("uld", "full")
    found["x_floor"] = 1 / times[str(one)].ratio(times[str(Implementation(*floor, FLOOR))])[0]
    return found


def errors_against_float64(chosen: list[Implementation], size: Size) -> dict[Implementation, Row]:
    found: dict[Implementation, Row] = {}
    exact: dict[tuple[str, str], tuple[float, torch.Tensor]] = {}
    for one in sorted(chosen, key=lambda one: (one.loss, one.teacher)):
        found[one] = {"value": "", "value_error": "", "gradient_error": ""}
        if one.how == FLOOR:
            continue
        if (one.loss, one.teacher) not in exact:
            exact.clear()  # dense gradients in float64 are large
            reference = Implementation(one.loss, one.teacher, PLAIN)
            exact[one.loss, one.teacher] = reference.prepare(size, torch.float64)()
        value, gradient = exact[one.loss, one.teacher]
        own, own_gradient = one.prepare(size)()
        found[one] = {
            "value": own,
            "value_error": abs(own / value - 1),
            "gradient_error": float((own_gradient - gradient).norm() / gradient.norm()),
        }
    return found


def write_csv(rows: list[Row], path: Path) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


HEAD = (
    "loss, teacher, implementation, CPU ms, median, wall ms, x authors, x GOLD, x plain, / floor, "
    "MiB, error, of gradient"
)


def print_table(rows: list[Row]) -> None:
    lines = [
        [
            *(str(row[key]) for key in ("loss", "teacher", "implementation")),
            *(f"{row[key]:.0f}" for key in ("cpu_min_ms", "cpu_median_ms", "wall_min_ms")),
            spread(row, "x_authors"),
            number(row["x_gold"], ".1f"),
            spread(row, "x_plain"),
            number(row["x_floor"], ".1f"),
            number(row["peak_mib"], ".0f"),
            number(row["value_error"], ".0e"),
            number(row["gradient_error"], ".0e"),
        ]
        for row in rows
    ]
    first = rows[0]
    done = conditions(first, first["rounds"], first["load_at_end"])
    print_markdown(HEAD.split(", "), lines, done)


def number(value: object, spec: str) -> str:
    return format(value, spec) if isinstance(value, float) else ""


def spread(row: Row, column: str) -> str:
    if row[column] == "":
        return ""
    low, high = row[f"{column}_low"], row[f"{column}_high"]
    return f"{row[column]:.1f} ({low:.0f} to {high:.0f})"


def plot(rows: list[Row], folder: Path) -> None:
    """Bars of milliseconds: how far each implementation is from the floor."""
    try:
        import matplotlib
    except ImportError:
        print("no plot: the extra 'bench' is not installed", file=sys.stderr)
        return
    matplotlib.use("Agg")
    from matplotlib import pyplot

    colours = {OURS: "tab:blue", PLAIN: "tab:grey", FLOOR: "tab:green"}
    figure, axes = pyplot.subplots(figsize=(8, 0.22 * len(rows) + 1), layout="constrained")
    names = [f"{row['loss']}, {row['teacher']}, {row['implementation']}" for row in rows]
    axes.barh(
        names[::-1],
        [row["cpu_min_ms"] for row in reversed(rows)],
        color=[colours.get(str(row["implementation"]), "tab:red") for row in reversed(rows)],
    )
    axes.set_xscale("log")
    axes.set_xlabel(f"CPU ms, forward and backward, {rows[0]['threads']} thread(s)")
    axes.tick_params(axis="y", labelsize=7)
    for ending in ("svg", "png"):
        figure.savefig(folder / f"losses.{ending}", dpi=150)


if __name__ == "__main__":
    os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")
    main()
