"""Finished work that whoever asked for it has not taken note of yet.

Snakemake deletes the outputs of a job that it did not see end: it cannot tell whether they are
whole. A manifest can. So a stage that is done leaves hard links to its outputs where its
checkpoints were, and the same job, run again, takes them back. They cost no room on the disk.
The Snakefile switches this on, and removes the links once Snakemake has noted what ended.
"""

import os
import shutil
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path

from kd.provenance.files import atomic_directory
from kd.provenance.manifest import StageRecord

SWITCH = "KD_KEEP_FINISHED"
LINKS = ".finished"  # no name in an experiment begins with a dot


def settle(record: StageRecord, folder: Path, *outputs: Path) -> None:
    """The stage is done: remove from its `folder` what it would have gone on from.

    With the environment's KD_KEEP_FINISHED set, links to `outputs` and their manifest take its
    place, where the file system can link.
    """
    if os.environ.get(SWITCH):
        with suppress(OSError), atomic_directory(folder / LINKS) as staging:
            for path in (*outputs, record.manifest_path(outputs[0])):
                _link(path, staging / path.name)
    for entry in folder.glob("*"):
        if entry.name != LINKS:
            _remove(entry)
    _remove_empty(folder)


def is_done(record: StageRecord, folder: Path | None, *outputs: Path) -> bool:
    """Whether `outputs` are there, made from the same; if not, take them back from `folder`."""
    if folder is None:
        return record.is_done(*outputs)
    if record.is_done(*outputs):
        if folder.exists():  # whoever made them was killed before it could settle
            settle(record, folder, *outputs)
        return True
    links = folder / LINKS
    targets = (*outputs, record.manifest_path(outputs[0]))
    if not all((links / path.name).exists() for path in targets):
        return False
    for path in targets:
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        with suppress(OSError):  # another Snakemake may forget them at this moment
            _link(links / path.name, path)
    return record.is_done(*outputs)


def forget(root: Path, results: Path, unnoted: Collection[Path]) -> None:
    """Remove such links below `root`, but for those to outputs that are `unnoted`.

    Args:
        root: folder of checkpoints, laid out as `results` is.
        results: folder of the outputs.
        unnoted: outputs that Snakemake, this one or another, has begun and not seen end.
    """
    for parent, folders, _ in os.walk(root):
        if LINKS not in folders:
            continue
        links = Path(parent, LINKS)
        # A stage's folder is named after its output, or after the folder around that.
        place = results / links.parents[1].relative_to(root)
        names = [path.name for path in links.glob("*")]
        if not any(around / name in unnoted for around in (place, place.parent) for name in names):
            shutil.rmtree(links, ignore_errors=True)
            _remove_empty(links.parent)


def _link(path: Path, to: Path) -> None:
    to.parent.mkdir(parents=True, exist_ok=True)
    if path.is_dir():
        shutil.copytree(path, to, copy_function=os.link)
    else:
        os.link(path, to)


def _remove(path: Path) -> None:
    """What is not needed any more; what cannot be removed is no reason to fail."""
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink()


def _remove_empty(folder: Path) -> None:
    with suppress(OSError):  # not empty: another run's state lies there
        os.removedirs(folder)
