"""What a GPU does with the sizes of the paper: random weights, no network, at most eight minutes.

    python -m benchmarks.gpu --out gpu.csv                 # one GPU, bfloat16
    python -m benchmarks.gpu --tiny --device cpu           # the same code at toy sizes, two minutes

Four parts (`--parts` picks some): `teacher`, a Llama-7B shape generates and its logits are
extracted; `student`, a Pythia-410m shape learns from stored logits, and from the teacher's
forward pass at every step; `losses`, ULD and KL at vocabularies of 32k, 50k and 250k against plain
and published implementations; `chain`, five tiny datasets through all stages, twice, with
deterministic kernels. Each figure stands beside the least that the device's own measured bandwidth
and matrix products allow. What does not fit is halved, and the note says so.
"""

import argparse
import csv
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

HERE = Path(__file__).resolve()
sys.path[:0] = [str(HERE.parents[2]), str(HERE.parents[1])]
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read when CUDA starts

import torch  # noqa: E402

from benchmarks.gpu import chain, losses, student, teacher  # noqa: E402
from benchmarks.gpu.device import FULL, TINY, Figure, Limits, Machine, measure_limits  # noqa: E402

PARTS: dict[str, Callable[[Machine, Limits], Iterator[Figure]]] = {
    "teacher": teacher.figures,
    "student": student.figures,
    "losses": losses.figures,
    "chain": chain.figures,
}


def run(machine: Machine, parts: list[str]) -> list[Figure]:
    """All figures of `parts`; a part that fails is one line that says so, never the end."""
    limits = measure_limits(machine)
    machine.free()
    found = [
        Figure("device", machine.name, "copy bandwidth", limits.bandwidth / 1e9, "GB/s"),
        Figure("device", machine.name, "matrix products", limits.flops / 1e12, "TFLOP/s"),
    ]
    for figure in found:
        print(figure, flush=True)
    for part in parts:
        started = time.perf_counter()
        try:
            for figure in PARTS[part](machine, limits):
                found.append(figure)
                print(figure, flush=True)
        except Exception as error:
            cause = " ".join(f"{type(error).__name__}: {error}".split())[:200]
            found.append(Figure(part, "", "failed", float("nan"), "", note=cause))
            print(found[-1], flush=True)
        machine.free()
        found.append(Figure(part, "", "took", time.perf_counter() - started, "s"))
        print(found[-1], flush=True)
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    parser.add_argument("--tiny", action="store_true", help="toy sizes")
    parser.add_argument("--parts", nargs="+", default=list(PARTS), choices=list(PARTS))
    parser.add_argument("--out", type=Path, default=Path("gpu.csv"))
    given = parser.parse_args()
    if given.device == "cuda" and not torch.cuda.is_available():
        sys.exit("no GPU can be used here; try --tiny --device cpu")
    machine = Machine(torch.device(given.device), TINY if given.tiny else FULL)
    found = run(machine, given.parts)
    with given.out.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(vars(found[0])))
        writer.writeheader()
        writer.writerows(vars(figure) for figure in found)
    print(f"written: {given.out}")
    return int(any(figure.what == "failed" for figure in found))


if __name__ == "__main__":
    sys.exit(main())
