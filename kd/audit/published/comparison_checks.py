"""Checks of what a paper sets side by side: methods of one student, and models of one dataset."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import combinations, product
from statistics import fmean

from pydantic import JsonValue

from kd.audit.findings import Finding, finding, printable, shell_command
from kd.audit.published.entries import Entry


@dataclass
class Comparison:
    """One line of a table: a student distilled by several methods, its teacher, and itself."""

    subject: str
    methods: list[Entry] = field(default_factory=list)
    undistilled: list[Entry] = field(default_factory=list)

    def labelled(self) -> list[tuple[str, Entry]]:
        """Every entry with its label; those before distillation come first."""
        return [(self.label(entry), entry) for entry in (*self.undistilled, *self.methods)]

    def label(self, entry: Entry) -> str:
        """A short name, with the settings where the comparison has several of that name."""
        short = _short_label(entry)
        if sum(_short_label(other) == short for other in (*self.undistilled, *self.methods)) == 1:
            return short
        settings = ", ".join(f"{name} {value}" for name, value in entry.run.settings.items())
        return f"{short} ({settings})"

    def against(self, baseline: str) -> list[tuple[Entry, Entry]]:
        """Every pair of a run of method `baseline` and one of another method."""
        first = [entry for entry in self.methods if entry.run.method == baseline]
        second = [entry for entry in self.methods if entry.run.method != baseline]
        return list(product(first, second))


def _short_label(entry: Entry) -> str:
    run = entry.run
    return run.method if run.teacher else f"{run.model} {run.method}"


def comparisons(entries: Iterable[Entry]) -> list[Comparison]:
    """Group distilled runs by dataset, teacher, student and variant; add who they start from."""
    found: dict[tuple[str, str, str, str], Comparison] = {}
    undistilled: dict[tuple[str, str], list[Entry]] = defaultdict(list)
    for entry in entries:
        run = entry.run
        if not run.teacher:
            undistilled[run.dataset, run.model].append(entry)
            continue
        key = run.dataset, run.teacher, run.model, run.variant
        subject = f"{run.dataset}: {run.teacher} to {run.model}"
        subject += f" ({run.variant})" if run.variant else ""
        found.setdefault(key, Comparison(subject)).methods.append(entry)
    for (dataset, teacher, model, _), comparison in found.items():
        comparison.undistilled = [*undistilled[dataset, teacher], *undistilled[dataset, model]]
    return [found[key] for key in sorted(found)]


def check_comparison(comparison: Comparison) -> Iterator[Finding]:
    """Rows and settings of one comparison."""
    labelled = comparison.labelled()
    if len(labelled) > 1:
        yield _rows(comparison)
        yield _settings(comparison.subject, labelled)


def check_undistilled(entries: Sequence[Entry]) -> Iterator[Finding]:
    """Settings of the models of one dataset that were not distilled."""
    datasets: dict[str, list[Entry]] = defaultdict(list)
    for entry in entries:
        if not entry.run.teacher:
            datasets[entry.run.dataset].append(entry)
    for dataset, found in sorted(datasets.items()):
        if len(found) > 1:
            yield _settings(
                f"{dataset}: models before distillation", [(e.run.model, e) for e in found]
            )


def check_checkpoints(
    found: Sequence[Comparison], baseline: str, subject: str
) -> Iterator[Finding]:
    """How often a method's checkpoint is later than its baseline's, over all comparisons."""
    steps = [
        (int(first.run.settings["checkpoint"]), int(second.run.settings["checkpoint"]))
        for comparison in found
        for first, second in comparison.against(baseline)
        if all(e.run.settings.get("checkpoint", "").isdecimal() for e in (first, second))
    ]
    if not steps:
        return
    later = sum(second > first for first, second in steps)
    equal = sum(second == first for first, second in steps)
    told = (
        f"Of {len(steps)} pairs, the checkpoint is later than that of {baseline} in "
        f"{later}, earlier in {len(steps) - later - equal}, the same in {equal}."
    )
    yield finding("settings", subject, "pass" if equal == len(steps) else "warn", told)


def _rows(comparison: Comparison) -> Finding:
    labelled = comparison.labelled()
    told = ", ".join(f"{label} {entry.tested or 'unknown'}" for label, entry in labelled)
    counts = {entry.tested for _, entry in labelled if entry.tested is not None}
    audited = [entry.run.predictions for _, entry in labelled if entry.predictions]
    count = shell_command("wc", "-l", paths=audited)
    if len(counts) > 1:
        effects = " ".join(_effects(labelled))
        return finding(
            "rows", comparison.subject, "warn", f"Rows differ: {told}. {effects}".strip(), count
        )
    for (label, first), (other, second) in combinations(labelled, 2):
        a, b = first.predictions, second.predictions
        if a and b and a.keys != b.keys:
            told = f"{label} and {other} have as many rows, but other references."
            return finding("rows", comparison.subject, "fail", told, count)
    return finding("rows", comparison.subject, "pass", f"Rows: {told}.")


def _effects(labelled: Sequence[tuple[str, Entry]]) -> Iterator[str]:
    """What becomes of the F1 (or first metric) of longer files on the rows of the shortest."""
    audited = [(label, entry.predictions) for label, entry in labelled if entry.predictions]
    if not audited:
        return
    label, shortest = min(audited, key=lambda pair: pair[1].rows)
    for other, predictions in audited:
        common = _positions(shortest.keys, predictions.keys)
        if predictions.rows == shortest.rows:
            continue
        if common is None:
            yield f"The rows of {label} are not among those of {other}."
            continue
        name, values = next(iter(predictions.scored.per_row.items()))
        yield (
            f"On the {len(common)} rows of {label}, {name} of {other} is "
            f"{fmean(values[i] for i in common):.2f} instead of {fmean(values):.2f}."
        )


def _positions(part: Sequence[bytes], whole: Sequence[bytes]) -> list[int] | None:
    """Where the elements of `part` stand in `whole`, in order; None if not all are there."""
    found: list[int] = []
    for position, key in enumerate(whole):
        if len(found) < len(part) and key == part[len(found)]:
            found.append(position)
    return found if len(found) == len(part) else None


def _settings(subject: str, labelled: Sequence[tuple[str, Entry]]) -> Finding:
    names = dict.fromkeys(name for _, entry in labelled for name in entry.run.settings)
    differing: dict[str, JsonValue] = {}
    for name in names:
        held = [(label, e.run.settings[name]) for label, e in labelled if name in e.run.settings]
        if len({value for _, value in held}) > 1:
            differing[name] = printable(", ".join(f"{label} {value}" for label, value in held))
    folders = {entry.run.path.parent.parent for _, entry in labelled}
    told = "; ".join(f"{name}: {values}" for name, values in differing.items())
    return finding(
        "settings",
        subject,
        "warn" if differing else "pass",
        f"Chosen differently, {told}." if differing else f"The same {', '.join(names)}.",
        shell_command("ls", paths=sorted(folders)),
        differing,
    )
