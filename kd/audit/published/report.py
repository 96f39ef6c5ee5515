"""`kd audit published`: from a folder to a report. Reads files below it, and nothing else."""

from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import chain
from pathlib import Path

from kd.audit.findings import Finding, Report, in_reading_order
from kd.audit.published.archive import Archive
from kd.audit.published.archive_checks import check_archive
from kd.audit.published.comparison_checks import (
    check_checkpoints,
    check_comparison,
    check_undistilled,
    comparisons,
)
from kd.audit.published.entries import Entry, Score, read_entries
from kd.audit.published.file_checks import check_file
from kd.audit.published.protocol import find_protocol
from kd.audit.published.significance import check_significance
from kd.errors import DataError

CHECKS = (
    "readable",
    "scores",
    "duplicates",
    "identity",
    "arithmetic",
    "rows",
    "scale",
    "empty candidates",
    "settings",
    "significance",
    "scoring protocol",
    "coverage",
)
"""In the order in which findings of one status are listed."""


def audit_published(folder: Path, protocol_name: str, bertscore: Path | None = None) -> Report:
    """Recompute and compare every score file below `folder`.

    Args:
        folder: the archive, or any folder of it that holds whole paths of the layout.
        protocol_name: the plug-in to read it with.
        bertscore: folder of the encoder, to recompute BERTScore F1 as well (slow, needs torch).

    Raises:
        DataError: no such folder or protocol, or no file that the protocol knows.
        ModelError: `bertscore` is no usable encoder.
    """
    protocol = find_protocol(protocol_name)
    archive = Archive(folder)
    score: Score = protocol.score
    if bertscore is not None:
        from kd.audit.published.encoder import with_bertscore

        score = with_bertscore(protocol, bertscore)
    contents = read_entries(archive, protocol, score)
    if not contents.entries and not contents.malformed:
        raise DataError(
            f"{folder}: no file in it is named like a score file of protocol '{protocol.name}' "
            f"({protocol.layout}). Name the folder of the results, or another --protocol."
        )
    compared = comparisons(contents.entries)
    findings: Iterable[Finding] = chain(
        check_archive(archive, contents),
        *(check_file(entry, protocol) for entry in contents.entries),
        *(check_comparison(comparison) for comparison in compared),
        check_undistilled(contents.entries),
        check_checkpoints(compared, protocol.baseline, archive.name),
        check_significance(compared, protocol),
    )
    found = in_reading_order(findings, CHECKS)
    return Report(
        audit="published",
        subject=archive.name,
        summary=_summary(contents.entries, found, protocol.name),
        findings=found,
    )


def _summary(entries: Sequence[Entry], findings: Iterable[Finding], protocol: str) -> str:
    count = Counter(found.status for found in findings if found.check == "scores")
    return (
        f"Protocol {protocol}, {len(entries)} score files: {count['pass']} agree with their "
        f"predictions, {count['fail']} differ, {count['not applicable']} cannot be audited"
    )
