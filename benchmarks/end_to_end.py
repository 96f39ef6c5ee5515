"""Distilling from a store of logits against running the teacher at every step, in the same loop.

    python benchmarks/end_to_end.py            # three pairs of models, in 4 to 8 minutes
    python benchmarks/end_to_end.py --quick    # a few steps, only to see that it runs

The pairs have random weights. Two have architectures, sizes and vocabularies of the experiment
`micro`: Llama and OPT of about the same size, and the pair with the largest ratio of parameters
there, Mistral and the smallest Pythia (1.6). Of `wide` the teacher has 15 times its student's.
Both schemes train the same student by ULD on the same rows with the project's own loop. From the
store: the loss as the project has it. Otherwise as the authors do it: the teacher's forward pass
and plain dense ULD at every step.

Beside steps per second stand the speed-ups over whole runs, extraction included, and the limit
that arithmetic sets them: a student's step costs 3 forward passes, a teacher's pass r of them, so
that E epochs gain at most (r + 3) / (3 + r / E).
"""

import argparse
import csv
import json
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve()
sys.path.insert(0, str(HERE.parents[1]))

import torch  # noqa: E402
from loss_baselines import plain  # noqa: E402
from measuring import (  # noqa: E402
    Times,
    conditions,
    load,
    machine,
    peak_in_fresh_process,
    peak_of,
    print_markdown,
)
from torch import Tensor  # noqa: E402
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel  # noqa: E402

from kd.experiment.loading import load_experiment  # noqa: E402
from kd.experiment.methods import Method  # noqa: E402
from kd.experiment.models import MicroModel  # noqa: E402
from kd.experiment.schema import Training  # noqa: E402
from kd.logits import LogitReader, LogitWriter  # noqa: E402
from kd.losses import load_loss  # noqa: E402
from kd.losses.bounds import error_bounds  # noqa: E402
from kd.losses.ot import uld  # noqa: E402
from kd.models.architectures import Vocabulary, build_model  # noqa: E402
from kd.training.batches import Batch, Collator  # noqa: E402
from kd.training.examples import Example  # noqa: E402
from kd.training.loop import Loop, Material  # noqa: E402
from kd.training.objective import Counts, Objective, Terms  # noqa: E402

STORE, LIVE = "store", "teacher at every step"
EPSILON = 1e-3
EPOCHS = (1, 5, 20)


@dataclass(frozen=True)
class Pair:
    """Sizes of two decoders and of their rows."""

    teacher: tuple[int, int] | MicroModel  # width and layers of a Llama, or as in an experiment
    student: tuple[int, int] | MicroModel
    vocabulary: int  # of ids in rows; of both models where these are Llamas
    prompt: int
    answer: int
    batch: int = 8

    def model(self, side: str) -> PreTrainedModel:
        given = getattr(self, side)
        if isinstance(given, MicroModel):
            return micro_model(given, sharp=side == "teacher")
        width, depth = given
        torch.manual_seed(0 if side == "teacher" else 1)
        config = LlamaConfig(
            vocab_size=self.vocabulary,
            hidden_size=width,
            intermediate_size=3 * width,
            num_hidden_layers=depth,
            num_attention_heads=4,
            num_key_value_heads=4,
            tie_word_embeddings=True,
            # Wide enough that the distributions are as sharp as those of trained models.
            initializer_range=4 * width**-0.5 if side == "teacher" else width**-0.5,
        )
        return LlamaForCausalLM(config)


def micro_model(given: MicroModel, sharp: bool) -> PreTrainedModel:
    """A model of the `micro` experiment before its pretraining.

    Teachers' embeddings are larger, or their distributions would be far flatter than trained ones.
    """
    vocabulary = Vocabulary(given.tokenizer.vocabulary, pad=0, eos=0, bos=None)
    model = build_model(given.architecture, given.size, vocabulary, context=256, seed=int(sharp))
    with torch.no_grad():
        model.get_output_embeddings().weight *= 4 if sharp else 1
    return model


def micro_pair(teacher: str, student: str) -> Pair:
    experiment = load_experiment(HERE.parents[1] / "experiments" / "micro.yaml")
    sides = experiment.teachers[teacher], experiment.students[student]
    micro = [side for side in sides if isinstance(side, MicroModel)]
    shared = min(side.tokenizer.vocabulary for side in micro)
    return Pair(*micro, vocabulary=shared, prompt=96, answer=8)


PAIRS = {
    "micro": micro_pair("llama", "opt"),  # about equal, as most pairs of that experiment
    "micro, tiny student": micro_pair("mistral", "pythia_160m"),  # the largest ratio it has
    "wide": Pair((640, 12), (192, 6), vocabulary=8_000, prompt=96, answer=16),
}


def parameters(model: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def examples(pair: Pair, rows: int) -> list[Example]:
    """Random rows; the last token of each is the end of text, number 0."""
    draw = torch.Generator().manual_seed(2)
    found = []
    for row in range(rows):
        text = torch.randint(1, pair.vocabulary, (pair.prompt + pair.answer,), generator=draw)
        prompt, answer = text.split([pair.prompt, pair.answer])
        target = [*answer.tolist(), 0]
        found.append(Example(f"r{row}", prompt.tolist(), target, list(range(len(target))), "-"))
    return found


@torch.inference_mode()
def extract(pair: Pair, rows: list[Example], folder: Path) -> float:
    """Write the store; returns the CPU seconds that it took."""
    model = pair.model("teacher").eval()
    started = time.process_time()
    width = model.config.vocab_size
    with LogitWriter(folder, vocabulary=width, epsilon=EPSILON) as writer:
        for first in range(0, len(rows), pair.batch):
            some = rows[first : first + pair.batch]
            ids = torch.tensor([row.prompt + row.target[:-1] for row in some])
            keep = slice(pair.prompt - 1, -1)
            logits = model.lm_head(model.model(ids).last_hidden_state[:, keep])
            for row, own in zip(some, logits, strict=True):
                tokens = torch.tensor(row.target[:-1])
                writer.add(row.id, tokens, own, ends=torch.arange(len(tokens)))
    return time.process_time() - started


class AuthorsObjective(Objective):
    """Cross-entropy and ULD on dense logits of a teacher that runs at every step."""

    def __init__(self, teacher: torch.nn.Module) -> None:
        super().__init__(Method(loss="none"), eos_token_id=0, shift=True)
        self._teacher = [teacher]  # no submodule: it is not trained

    def forward(
        self,
        model: torch.nn.Module,
        batch: Batch,
        counts: Counts | None = None,
        *,
        certify: bool = False,
    ) -> Terms:
        del counts, certify  # a batch is a whole step here, and nothing is left out
        logits = model(**batch.inputs).logits
        with torch.no_grad():
            other = self._teacher[0](**batch.inputs).logits
        cross_entropy = self._cross_entropy(logits, None, batch.labels)
        distillation = plain("uld", logits, other, batch.scored(0))
        return Terms(cross_entropy + distillation, cross_entropy, distillation)


class Steps:
    """A loop that is ready to take steps."""

    def __init__(self, pair: Pair, scheme: str, rows: list[Example], folder: Path) -> None:
        model = pair.model("student")
        store = LogitReader(folder) if scheme == STORE else None
        objective = (
            Objective(Method(loss="uld"), eos_token_id=0, shift=True)
            if scheme == STORE
            else AuthorsObjective(pair.model("teacher").eval().requires_grad_(False))
        )
        collate = Collator(0, encoder_decoder=False, store=store)
        self.loop = Loop(
            model,
            objective,
            Material(rows, rows, collate),
            training=Training(learning_rate=1e-4, batch_size=pair.batch, epochs=1000),
            seed=0,
        )

    def __call__(self, count: int) -> None:
        for _ in range(count):
            self.loop._train_step()


ROUNDING = 3e-6  # of float32, which bounds leave out


def agreement(pair: Pair, rows: list[Example], folder: Path) -> tuple[float, float, int]:
    """ULD from the store beside ULD from dense logits, token by token, at the same weights.

    Returns:
        The largest difference, its own bound, and how many tokens differ by more than theirs.
    """
    student, teacher = pair.model("student").eval(), pair.model("teacher").eval()
    differences, bounds = [], []
    loss = load_loss("uld")
    collate = Collator(0, encoder_decoder=False, store=LogitReader(folder))
    with torch.inference_mode():
        for row in rows[: 2 * pair.batch]:
            batch = collate([row])
            logits, other = (model(**batch.inputs).logits for model in (student, teacher))
            labels: Tensor = batch.scored(0)
            stored = loss.align(logits, batch.teacher, labels)
            dense = loss.align(logits, other, labels, labels)
            values = [uld(one.student, one.teacher, one.spans) for one in (stored, dense)]
            differences.append((values[0] - values[1]).abs())
            bound = error_bounds(loss.info, {}, stored)
            assert bound is not None
            bounds.append(bound)
    difference, bound = torch.cat(differences), torch.cat(bounds)
    worst = int(difference.argmax())
    violations = int((difference > bound + ROUNDING).sum())
    return float(difference[worst]), float(bound[worst]), violations


def main() -> None:
    options = parse_options()
    torch.set_num_threads(options.threads)
    if options.memory_of:
        name, scheme, folder = options.memory_of
        pair = PAIRS[name]
        rows = examples(pair, options.rows)
        print(json.dumps(peak_of(lambda: Steps(pair, scheme, rows, Path(folder))(3))))
        return
    found = []
    for name, pair in PAIRS.items():
        with tempfile.TemporaryDirectory() as folder:
            found += measure(name, pair, Path(folder) / "store", options)
    options.out.mkdir(parents=True, exist_ok=True)
    with (options.out / "end_to_end.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(found[0]))
        writer.writeheader()
        writer.writerows(found)
    print_tables(found)
    plot(found, options.out)


def print_tables(rows: list[dict[str, Any]]) -> None:
    """Both schemes, and what the store gains, without extraction and over whole runs."""
    first = rows[0]
    done = conditions(first, first["rounds"], rows[-1]["load_at_end"])
    print_markdown(
        ["pair", "scheme", "CPU ms a step", "median", "wall ms", "MiB, models included"],
        [
            [
                *(row["pair"], row["scheme"]),
                *(f"{row[key]:.1f}" for key in ("cpu_min_ms", "cpu_median_ms", "wall_min_ms")),
                f"{row['peak_mib']:.0f}",
            ]
            for row in rows
        ],
        done,
    )
    print_markdown(
        ["pair", "teacher", "without extraction", *(f"{e} epochs" for e in EPOCHS), "ULD differs"],
        [
            [
                row["pair"],
                f"{row['ratio_of_parameters']:.1f} x",
                f"{row['x']:.2f} ({row['x_low']:.2f} to {row['x_high']:.2f}) of {row['limit']:.2f}",
                *(f"{row[f'x_{e}_epochs']:.2f} of {row[f'limit_{e}_epochs']:.2f}" for e in EPOCHS),
                f"{row['difference']:.1e}, bound {row['bound']:.1e}, "
                f"{row['beyond_bound']} tokens beyond theirs",
            ]
            for row in rows[:: len((STORE, LIVE))]
        ],
        "times as fast as the teacher at every step, of what arithmetic allows",
    )


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="a few steps, one round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=4, help="a round")
    parser.add_argument("--rows", type=int, default=64)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("results/benchmarks"))
    parser.add_argument("--memory-of", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.quick:
        options.rounds, options.steps, options.rows = 1, 1, 16
    return options


def measure(
    name: str, pair: Pair, folder: Path, options: argparse.Namespace
) -> list[dict[str, object]]:
    header = machine(options.threads)
    rows = examples(pair, options.rows)
    extraction = extract(pair, rows, folder)
    times = {STORE: Times(), LIVE: Times()}
    loops = {scheme: Steps(pair, scheme, rows, folder) for scheme in times}
    for steps in loops.values():
        steps(2)  # what is allocated or read once is no cost of a step
    for number in range(options.rounds):
        for scheme, steps in loops.items():
            wall, cpu = time.perf_counter(), time.process_time()
            steps(options.steps)
            times[scheme].cpu.append((time.process_time() - cpu) / options.steps)
            times[scheme].wall.append((time.perf_counter() - wall) / options.steps)
        print(f"{name}: round {number + 1} of {options.rounds}, load {load()}", file=sys.stderr)
    r = parameters(pair.model("teacher")) / parameters(pair.model("student"))
    per_step = {scheme: min(some.cpu) for scheme, some in times.items()}
    ratio, low, high = times[STORE].ratio(times[LIVE])
    worst, bound, violations = agreement(pair, rows, folder)
    steps_an_epoch = len(rows) / pair.batch
    gains = {}
    for epochs in EPOCHS:
        steps_of_run = epochs * steps_an_epoch
        spent = extraction + steps_of_run * per_step[STORE]
        gains[f"x_{epochs}_epochs"] = steps_of_run * per_step[LIVE] / spent
        gains[f"limit_{epochs}_epochs"] = (r + 3) / (3 + r / epochs)
    found = []
    for scheme, some in times.items():
        command = [str(HERE), "--threads", str(options.threads), "--rows", str(options.rows)]
        peak = peak_in_fresh_process(*command, "--memory-of", name, scheme, str(folder))
        found.append(
            {
                **{"pair": name, "scheme": scheme, "ratio_of_parameters": r},
                **some.row(),
                **{"x": ratio, "x_low": low, "x_high": high, "limit": (r + 3) / 3},
                **gains,
                "peak_mib": peak,
                "extraction_cpu_s": extraction,
                "difference": worst,
                "bound": bound,
                "beyond_bound": violations,
                **header,
                "load_at_end": load(),
                "rounds": options.rounds,
            }
        )
    return found


def plot(rows: list[dict[str, object]], folder: Path) -> None:
    """Speed-up over whole runs, and its limit, against epochs."""
    try:
        import matplotlib
    except ImportError:
        print("no plot: the extra 'bench' is not installed", file=sys.stderr)
        return
    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(5, 3.5), layout="constrained")
    for row in rows[:: len((STORE, LIVE))]:
        label = f"{row['pair']}, teacher {row['ratio_of_parameters']:.0f} x"
        (line,) = axes.plot(EPOCHS, [row[f"x_{e}_epochs"] for e in EPOCHS], "o-", label=label)
        limits = [row[f"limit_{e}_epochs"] for e in EPOCHS]
        axes.plot(EPOCHS, limits, "--", color=line.get_color(), label=f"{row['pair']}, limit")
    axes.set_xscale("log")
    axes.set_xticks(EPOCHS, [str(e) for e in EPOCHS])
    axes.set_xlabel("epochs")
    axes.set_ylabel("times as fast as the teacher at every step")
    axes.legend(fontsize=7)
    for ending in ("svg", "png"):
        figure.savefig(folder / f"end_to_end.{ending}", dpi=150)


if __name__ == "__main__":
    main()
