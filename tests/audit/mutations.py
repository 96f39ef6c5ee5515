"""Planted faults, each with the check that must find it first.

`python -m tests.audit.mutations` plants them all and prints fault, check and seconds.
"""

import os
import re
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from kd.audit.findings import Finding
from kd.audit.notes import (
    AGREEMENT,
    COMPLETENESS,
    CONSISTENCY,
    CURRENCY,
    INTEGRITY,
    PINNING,
    PROJECTION,
    REPEATABILITY,
    STATISTICS,
    VALIDITY,
)
from kd.audit.results import ResultsReport, audit_results
from kd.audit.scope import Settings
from kd.audit.target import Target, experiment_target, table_target
from tests.audit import malpractice as made
from tests.audit.fabrication import EXPERIMENT, Plan, World, fabricate, run_of
from tests.audit.honest_repeat import repeated_honestly
from tests.audit.small_files import DATASET
from tests.audit.tampering import (
    EVAL,
    LOGITS,
    OTHER,
    RUN,
    Tamper,
    change_experiment,
    copy_over,
    cut,
    edit_context,
    edit_every_manifest,
    edit_manifest,
    flip,
    forge,
    forge_column,
    leave_checkpoint,
    link,
    query,
    remove,
    replace_text,
    swap,
    swap_and_cover_up,
    unhash_lock,
)

WEIGHTS = f"{RUN}/model/model.safetensors"
SHARDS = [f"{LOGITS}/shard-0000{number}.safetensors" for number in range(2)]
Rule = tuple[str, str]
FORGED = {  # columns of the table's csv that someone might wish to be otherwise
    "uld": "99.0",
    "uld_sd": "0.01",
    "uld_n": "30",
    "gain_uld": "50.0",
    "gain_uld_lo": "0.5",
    "gain_uld_hi": "50.0",
    "gain_uld_p": "0.0001",
    "gain_uld_p_holm": "0.0001",
    "gain_uld_sd": "0.01",
    "gain_uld_n": "30",
    "difference_uld": "0.0",
    "inside_uld": "surely",
}


def wider(text: str) -> str:
    """The first interval of the table's json with another lower bound."""
    return re.sub(r'"low": -?', '"low": 9', text, count=1)


def other_verdict(text: str) -> str:
    """`text` with the first verdict on a claim turned round."""
    told = [outcome for outcome in ("does not hold", "undecided", "holds") if outcome in text]
    first = min(told, key=text.index)
    return text.replace(first, "does not hold" if first == "holds" else "holds", 1)


# What is done to a finished tree, by the check and rule that must find it first.
TAMPERED: Mapping[Rule, Mapping[str, Tamper]] = {
    (INTEGRITY, "outputs"): {
        "flipped bit in a student's weights": flip(WEIGHTS),
        "flipped bit in teacher logits": flip(SHARDS[1]),
        "truncated logit shard": cut(SHARDS[0]),
        "missing logit shard": remove(SHARDS[0]),
        "two logit shards swapped": swap(*SHARDS),
        "a logit shard in place of another": copy_over(*SHARDS),
        "edited index of teacher logits": replace_text(
            f"results/tiny/{LOGITS}/index.json", '"r0"', '"r9"'
        ),
        "flipped bit in predictions": flip(f"{EVAL}/predictions.parquet"),
        "flipped bit in the test rows": flip(f"data/{DATASET}/test.parquet"),
        "edited score": replace_text(f"results/tiny/{EVAL}/scores.json", '"mean":', '"mean":1'),
        "edited digit in the table": replace_text("results/tiny/tables/table2.csv", "t,1", "t,9"),
        "edited chart": replace_text("results/tiny/tables/table2.svg", "0 0 1 1", "0 0 2 2"),
        "edited training curve": replace_text(f"results/tiny/{RUN}/train.jsonl", ": 4", ": 3"),
        "two students' weights swapped": swap(f"{RUN}/model", f"{OTHER}/model"),
        "deleted scores": remove(f"{EVAL}/scores.json"),
        "symbolic link in place of weights": link(WEIGHTS),
        "symbolic link in place of predictions": link(f"{EVAL}/predictions.parquet"),
    },
    (INTEGRITY, "manifest"): {
        "deleted manifest": remove(f"{RUN}/distill.manifest.json"),
        "deleted manifest of the rows": remove(f"data/{DATASET}/data.manifest.json"),
        "half a manifest": cut(f"{EVAL}/predict.manifest.json"),
        "forged manifest": edit_manifest(
            f"{RUN}/distill", lambda m: m["hashed"]["spec"].update(seed=5), rehash=False
        ),
        "symbolic link in place of a manifest": link(f"{EVAL}/score.manifest.json"),
    },
    (INTEGRITY, "inputs"): {
        "two whole runs swapped": swap(RUN, OTHER),
        "forged manifest with a new identity": edit_manifest(
            f"{EVAL}/predict", lambda m: m["hashed"]["numerics"].update(note="x"), rehash=True
        ),
    },
    (INTEGRITY, "table made again"): {
        **{
            f"forged {column} of the table": forge_column(column, value)
            for column, value in FORGED.items()
        },
        "forged value of a seed": forge("long.csv", lambda text: text.replace(",0,", ",0,9", 1)),
        "forged interval in the json": forge("json", wider),
        "forged verdict on a claim": forge("json", other_verdict),
        "forged verdict in the md": forge("md", other_verdict),
        "forged mark of significance": forge("tex", lambda text: text.replace("]", "]$^{*}$", 1)),
    },
    (INTEGRITY, "outside"): {
        "published values edited afterwards": replace_text(
            "experiments/published.csv", "made up", "made up by us"
        ),
    },
    (INTEGRITY, "copy"): {
        "edited digit in the copied table": replace_text("results/table2.csv", "t,1", "t,9"),
    },
    (INTEGRITY, "order in time"): {
        "clock skew": edit_context(f"{EVAL}/predict", started="2001-01-01T00:00:00+00:00"),
        "a start in the future": edit_context("tables/table2", started="2999-01-01T00:00:00+00:00"),
    },
    (CURRENCY, "specification"): {
        "changed key of training": change_experiment(training={"learning_rate": 0.002}),
        "changed weight of a loss": change_experiment(
            methods={"teacher_text": {"loss": "none"}, "uld": {"loss": "uld", "weight": 9.0}}
        ),
        "changed metrics": change_experiment(evaluation={"metrics": ["f1"]}),
        "two whole runs swapped, and the table made anew": swap_and_cover_up(RUN, OTHER),
        "edited claim": change_experiment(
            claims={"uld_beats_text": EXPERIMENT["claims"]["uld_beats_text"] | {"margin": 1.0}}
        ),
        "changed generation": change_experiment(generation={"max_new_tokens": 8}),
    },
    (COMPLETENESS, "declared cells"): {
        "a declared line that was never made": change_experiment(
            tables={"table2": {"title": "Overall", "fractions": [50, 100]}}
        ),
    },
    (COMPLETENESS, "failed runs"): {"a failed run's checkpoint": leave_checkpoint},
    (PINNING, "commit"): {
        "dirty tree": edit_context(f"{RUN}/distill", dirty=True),
        "made outside of git": edit_every_manifest(lambda m: m["context"].update(commit=None)),
    },
    (PINNING, "container"): {
        "an image without a digest": edit_every_manifest(
            lambda m: m["context"].update(container="name:kd.sif")
        ),
        "one artifact made in a container": edit_context(
            f"{RUN}/distill", container=f"sha256:{'ab' * 32}"
        ),
    },
    (PINNING, "lock"): {"lock without hashes": unhash_lock},
    (PROJECTION, "MLflow"): {
        "edited metric in MLflow": query("UPDATE latest_metrics SET value = 99"),
        "run missing in MLflow": query(
            "DELETE FROM tags WHERE key = 'kd.path' AND value LIKE 'runs/%uld%s1'"
        ),
    },
    (PROJECTION, "README"): {
        "edited figure in the README": replace_text("README.md", "| 100.0 |", "| 99.0 |"),
    },
}

LAST = EXPERIMENT["training"] | {"select": "last"}
NO_ENCODER = {
    "metrics": ["f1", "bertscore"],
    "bertscore": {"model": "no/such-encoder", "layer": 1},
}

# What a tree is made with, every manifest consistent.
MADE: Mapping[Rule, Mapping[str, Plan]] = {
    (INTEGRITY, "expected identity"): {
        "every digest forged, against a kept identity": made.of_one_run(made.flattered),
    },
    (CURRENCY, "code"): {
        "stale code of a loss": Plan(code={"uld": "0" * 64}),
        "stale code of predictions": Plan(code={"predict": "0" * 64}),
    },
    (COMPLETENESS, "declared cells"): {
        "a seed too few": Plan(seeds=(0, 1)),
        "a seed too many": Plan(seeds=(0, 1, 2, 3)),
    },
    (COMPLETENESS, "undeclared runs"): {"a run that nothing declares": Plan(spare=(7,))},
    (COMPLETENESS, "metrics"): {
        "a metric that could not be computed": Plan(experiment={"evaluation": NO_ENCODER}),
    },
    (PINNING, "revisions"): {"floating revision": made.from_hub("main")},
    (PINNING, "recorded versions"): {
        "made with versions that are not locked": Plan(
            numerics={"": {"packages": {"numpy": "1.0.0"}}}
        ),
    },
    (CONSISTENCY, "hardware"): {
        "mixed devices": Plan(numerics={RUN: {"device": "cuda"}}),
        "mixed numbers of threads": Plan(numerics={f"{RUN}/distill": {"threads": 2}}),
    },
    (CONSISTENCY, "versions"): {
        "mixed versions": Plan(numerics={f"{RUN}/distill": {"python": "3.10.0"}}),
    },
    (CONSISTENCY, "rows"): {
        # Of all models alike: a table refuses cells that were scored on different rows.
        "dropped test rows": Plan(predictions=lambda _, made: made[:-2]),
        "references that are the predictions": made.of_one_run(made.with_own_references),
        "other prompts than the specification's": made.of_one_run(made.with_other_prompts),
    },
    (VALIDITY, "seeds"): {
        "one seed used twice": Plan(specs={f"{run_of('uld', 1).path}/distill": {"seed": 0}}),
        "two seeds with identical weights": Plan(weights=made.of_seed_zero),
        "two methods with identical weights": Plan(weights=made.of_any_method),
        "a student that was not trained": Plan(weights=made.untrained),
    },
    (VALIDITY, "weights"): {"NaN in weights": Plan(weights=made.not_a_number)},
    (VALIDITY, "curves"): {
        "NaN in a training curve": Plan(curve=made.nan_curve),
        "a step missing in a curve": Plan(curve=made.short_curve),
        "a loss that never fell": Plan(curve=made.rising, experiment={"training": LAST}),
    },
    (VALIDITY, "leakage"): {"test rows among the training rows": Plan(rows=made.leak)},
    (VALIDITY, "selection"): {
        "validation rows that are test rows": Plan(rows=made.validate_on_test),
        "selection on the test split": Plan(validation_is_test=True),
        "not the checkpoint that validation chose": Plan(curve=made.better_before),
    },
    (VALIDITY, "teacher answers"): {"empty answers of the teacher": Plan(answers=made.silent)},
    (VALIDITY, "empty predictions"): {"empty predictions": made.of_one_run(made.blank)},
    (VALIDITY, "dropped rows"): {
        "dropped training rows": Plan(counts={"rows": 8, "dropped_too_long": 15}),
    },
    (STATISTICS, "seeds"): {"one seed alone": Plan(seeds=(0,), experiment={"seeds": [0]})},
    (AGREEMENT, "published values"): {
        "methods in the reverse of the published order": Plan(published=made.other_way),
    },
    (REPEATABILITY, "repeat"): {"every digest forged, made again": made.of_one_run(made.flattered)},
}

# Faults that are worth a warning: doubtful, but not proof that a number does not hold.
WARNINGS = {
    "an image without a digest",
    "one artifact made in a container",
    "clock skew",
    "a start in the future",
    "a seed too many",
    "a run that nothing declares",
    "a metric that could not be computed",
    "a failed run's checkpoint",
    "dirty tree",
    "made outside of git",
    "made with versions that are not locked",
    "mixed devices",
    "mixed numbers of threads",
    "a loss that never fell",
    "one seed alone",
}


@dataclass(frozen=True)
class Fault:
    """A fault: planted into a finished tree, or made with it; and what must find it first."""

    name: str
    check: str
    rule: str
    tamper: Tamper | None = None
    plan: Plan = field(default_factory=Plan)

    @property
    def status(self) -> str:
        return "warn" if self.name in WARNINGS else "fail"

    @property
    def of_experiment(self) -> bool:
        """Whether only an audit of the whole experiment can see it."""
        return self.rule == "undeclared runs"


FAULTS = (
    *(Fault(name, *rule, tamper=how) for rule, of in TAMPERED.items() for name, how in of.items()),
    *(Fault(name, *rule, plan=plan) for rule, of in MADE.items() for name, plan in of.items()),
)


@dataclass(frozen=True)
class Found:
    """What an audit said of a planted fault."""

    report: ResultsReport
    news: list[Finding]  # failures and warnings that the clean tree does not have, in order
    seconds: float

    @property
    def first(self) -> Finding:
        return self.news[0]


def audit(world: World, **settings: Any) -> ResultsReport:
    """Audit a world's table, against its own experiment file and checkout."""
    return _audit(world, table_target(world.root / "results" / "table2.csv"), **settings)


def audit_whole(world: World, **settings: Any) -> ResultsReport:
    return _audit(world, experiment_target(str(world.results)), **settings)


def _audit(world: World, target: Target, **settings: Any) -> ResultsReport:
    chosen = Settings(experiment=str(world.file), checkout=world.root, **settings)
    report, _ = audit_results(target, chosen)
    return report


def plant(fault: Fault, clean: World, folder: Path) -> World:
    """A world with the fault in it: a copy of the clean one, or one made with the fault."""
    world = clean.copy(folder) if fault.plan == Plan() else fabricate(folder, fault.plan)
    if fault.tamper is not None:
        fault.tamper(world)
    return world


@cache
def clean_report(clean: World, whole: bool) -> ResultsReport:
    """What an audit says of the clean tree."""
    return audit_whole(clean) if whole else audit(clean)


def catch(fault: Fault, clean: World, folder: Path) -> Found:
    """Plant a fault and audit."""
    reference = clean_report(clean, fault.of_experiment)
    world = plant(fault, clean, folder)
    settings: dict[str, Any] = {}
    if fault.rule == "expected identity":
        settings["expect"] = reference.identity
    started = time.perf_counter()
    with repeated_honestly(clean) as repeat:
        if fault.rule == "repeat":
            settings["repeat"] = repeat
        report = audit_whole(world, **settings) if fault.of_experiment else audit(world, **settings)
    seconds = time.perf_counter() - started
    known = {(one.check, one.rule, one.evidence) for one in reference.findings}
    news = [
        one
        for one in report.findings
        if one.status in ("fail", "warn") and (one.check, one.rule, one.evidence) not in known
    ]
    return Found(report, news, seconds)


def main() -> int:
    """Plant every fault and print a table; the exit status counts those that got away."""
    missed = 0
    print("| planted fault | found by | status | consequences | seconds |")
    print("|---|---|---|---|---|")
    with TemporaryDirectory() as scratch:
        clean = fabricate(Path(scratch) / "clean")
        for number, fault in enumerate(FAULTS):
            found = catch(fault, clean, Path(scratch) / str(number))
            first = found.news[0] if found.news else None
            caught = first is not None and (first.check, first.rule) == (fault.check, fault.rule)
            missed += not caught
            where = f"{first.check}: {first.rule}" if first else "nothing"
            consequences = sum(bool(one.derived_from) for one in found.news)
            mark = "" if caught else f" (MISSED: wanted {fault.check}: {fault.rule})"
            print(
                f"| {fault.name} | {where}{mark} | {first.status if first else ''} | "
                f"{consequences} | {found.seconds:.2f} |"
            )
            sys.stdout.flush()
    print(f"\n{len(FAULTS) - missed} of {len(FAULTS)} faults found by the intended check first.")
    return missed


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    sys.exit(main())
