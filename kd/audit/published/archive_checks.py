"""Checks of an archive as a whole: copies, mixed scales, and what it leaves out."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import combinations
from pathlib import PurePosixPath

from pydantic import JsonValue

from kd.audit.findings import Finding, Status, finding, printable, shell_command
from kd.audit.published.archive import Archive
from kd.audit.published.entries import Contents, Entry
from kd.audit.published.protocol import Run

# Rounding or cutting a fraction to four digits moves its percentage by less than this.
_SAME = 0.01 + 1e-9
_ENOUGH = 5  # metrics, none of them 0, that two files must share to be called copies


def check_archive(archive: Archive, contents: Contents) -> Iterator[Finding]:
    """All findings that are not about one score file or one comparison."""
    yield from _unreadable(archive.refused, contents)
    yield from _duplicates(contents.entries, archive.name)
    yield from _scales(contents.entries)
    yield _coverage(contents.entries, archive.name)


def _unreadable(refused: Mapping[PurePosixPath, str], contents: Contents) -> Iterator[Finding]:
    for path, why in sorted(contents.malformed.items()):
        show = shell_command("head", "-c", "400", paths=[path])
        yield finding("readable", str(path), "fail", f"Cannot be read: {why}.", show)
    for path, why in sorted(refused.items()):
        show = shell_command("ls", "-ld", paths=[path])
        yield finding("readable", str(path), "warn", f"Left out: {why}.", show)
    for path in contents.orphans:
        told = "Predictions without a score file: no published number rests on them."
        yield finding("readable", str(path), "warn", told)


def _duplicates(entries: Sequence[Entry], archive: str) -> Iterator[Finding]:
    copies: dict[str, list[tuple[Entry, Entry]]] = defaultdict(list)
    for pair in combinations(entries, 2):
        if _same_values(*pair) or _same_predictions(*pair):
            suspect, other = _suspect_first(*pair)
            copies[suspect.subject].append((suspect, other))
    for found in copies.values():
        yield _copy(found[0][0], [other for _, other in found])
    if not copies:
        told = f"No two of {len(entries)} score files hold the same numbers or predictions."
        yield finding("duplicates", archive, "pass", told)


def _copy(suspect: Entry, others: Sequence[Entry]) -> Finding:
    other = others[0]
    what = [
        *(["metrics"] if _same_values(suspect, other) else []),
        *(["predictions"] if _same_predictions(suspect, other) else []),
    ]
    told = f"All {' and '.join(what)} equal those of {other.subject}"
    if suspect.run.dataset != other.run.dataset:
        told += f", which is of another dataset ({other.run.dataset}, not {suspect.run.dataset})"
    if suspect.predictions is None and other.predictions is not None:
        told += "; only the latter has predictions, so this file is the copy"
    if len(others) > 1:
        told += f"; {len(others) - 1} more files hold the same"
    status: Status = "warn" if all(_same_run(suspect.run, o.run) for o in others) else "fail"
    compare = shell_command("diff", paths=[suspect.run.path, other.run.path])
    details: dict[str, JsonValue] = {"same_as": [printable(o.subject) for o in others]}
    return finding("duplicates", suspect.subject, status, f"{told}.", compare, details)


def _suspect_first(first: Entry, second: Entry) -> tuple[Entry, Entry]:
    """The one that cannot be recomputed is the likelier copy."""
    copied = first.predictions is None and second.predictions is not None
    return (first, second) if copied else (second, first)


def _same_values(first: Entry, second: Entry) -> bool:
    common = [name for name in first.values if name in second.values and first.values[name]]
    return len(common) >= _ENOUGH and all(
        abs(first.values[name] - second.values[name]) < _SAME for name in common
    )


def _same_predictions(first: Entry, second: Entry) -> bool:
    a, b = first.predictions, second.predictions
    return a is not None and b is not None and a.digest == b.digest


def _same_run(first: Run, second: Run) -> bool:
    """Whether only their places differ: one run, published twice."""
    return replace(first, path=second.path, predictions=second.predictions) == second


def _scales(entries: Sequence[Entry]) -> Iterator[Finding]:
    datasets: dict[str, list[Entry]] = defaultdict(list)
    for entry in entries:
        if entry.values:
            datasets[entry.run.dataset].append(entry)
    for dataset, found in sorted(datasets.items()):
        fractions = [entry.subject for entry in found if entry.scale == "fractions"]
        told = f"In fractions {len(fractions)} of {len(found)} files, the rest in percent."
        if 0 < len(fractions) < len(found):
            show = shell_command("head", "-n", "8", paths=fractions)
            named: list[JsonValue] = [printable(path) for path in fractions]
            yield finding("scale", dataset, "warn", told, show, {"fractions": named})
        else:
            yield finding("scale", dataset, "pass", told)


def _coverage(entries: Sequence[Entry], archive: str) -> Finding:
    groups: dict[str, list[Entry]] = defaultdict(list)
    for entry in entries:
        groups[f"{entry.run.dataset} {entry.run.method}"].append(entry)
        groups[entry.run.model].append(entry)
    lost = sorted(
        f"{name} ({len(found)})"
        for name, found in groups.items()
        if not any(entry.predictions for entry in found)
    )
    audited = sum(entry.predictions is not None for entry in entries)
    told = f"{audited} of {len(entries)} score files can be recomputed."
    if audited == len(entries):
        return finding("coverage", archive, "pass", told)
    return finding(
        "coverage",
        archive,
        "warn",
        f"{told} None can of {', '.join(lost)}." if lost else told,
        shell_command("git", "log", "--all", "--diff-filter=D", "--name-only"),
    )
