"""Finished work that whoever asked for it has not taken note of yet.

Snakemake deletes the outputs of a job that it did not see end: it cannot tell whether they are
whole. A manifest can. So a stage that is done leaves hard links to its outputs where its
checkpoints were, and the same job, run again, takes them back. They cost no room on the disk.
The Snakefile switches this on, and removes the links once Snakemake has noted all that ended.
"""

import os
import shutil
from contextlib import suppress
from pathlib import Path

from kd.provenance.files import atomic_directory
from kd.provenance.manifest import StageRecord

SWITCH = "KD_KEEP_FINISHED"
LINKS = "finished"


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
            shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
    _remove_empty(folder)


def is_done(record: StageRecord, folder: Path | None, *outputs: Path) -> bool:
    """Whether `outputs` are there, made from the same; if not, take them back from `folder`."""
    if folder is None or record.is_done(*outputs):
        return record.is_done(*outputs)
    links = folder / LINKS
    targets = (*outputs, record.manifest_path(outputs[0]))
    if not all((links / path.name).exists() for path in targets):
        return False
    for path in targets:
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        _link(links / path.name, path)
    return record.is_done(*outputs)


def forget(root: Path) -> None:
    """Remove all such links below `root`: everything that ended has been noted."""
    for links in sorted(root.glob(f"**/{LINKS}")):
        shutil.rmtree(links, ignore_errors=True)
        _remove_empty(links.parent)


def _link(path: Path, to: Path) -> None:
    to.parent.mkdir(parents=True, exist_ok=True)
    if path.is_dir():
        shutil.copytree(path, to, copy_function=os.link)
    else:
        os.link(path, to)


def _remove_empty(folder: Path) -> None:
    with suppress(OSError):  # not empty: another run's state lies there
        os.removedirs(folder)
