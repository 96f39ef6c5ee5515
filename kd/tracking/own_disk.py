"""A database on a network file system, changed in a copy on a disk of this machine's own.

SQLite needs locks that network file systems do not give reliably. The copy takes the
original's place in one rename, so a reader sees the old database or the new one. The caller
makes sure that there is one writer.
"""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from kd.provenance.files import atomic_file

NETWORK = frozenset(
    "9p afs beegfs ceph cifs fuse.ceph fuse.glusterfs fuse.juicefs fuse.s3fs fuse.sshfs "
    "glusterfs gpfs lustre nfs nfs4 panfs pvfs2 smb3 virtiofs wekafs".split()
)
MOUNTS = Path("/proc/self/mounts")


@contextmanager
def on_own_disk(database: Path) -> Iterator[Path]:
    """Yield where to open `database`: itself, or a copy that replaces it if the block succeeds."""
    if file_system_of(database.parent) not in NETWORK:
        yield database
        return
    with in_one_step(database) as copy:
        yield copy


@contextmanager
def in_one_step(database: Path) -> Iterator[Path]:
    """Yield a copy on this machine's own disk; it replaces `database` if the block succeeds."""
    with tempfile.TemporaryDirectory(prefix="kd-tracking-") as folder:
        copy = Path(folder) / database.name
        if database.exists():
            shutil.copyfile(database, copy)
        yield copy
        with atomic_file(database) as staging:
            shutil.copyfile(copy, staging)


def file_system_of(folder: Path) -> str:
    """Type of the file system that holds `folder`, or an empty text where nobody says."""
    place = str(folder.resolve())
    found, longest = "", -1
    try:
        lines = MOUNTS.read_text(encoding="utf-8").splitlines()
    except OSError:
        return ""
    for line in lines:
        _, point, kind, *_ = line.split(" ")
        point = point.replace("\\040", " ")
        below = point in ("/", place) or place.startswith(point + os.sep)
        if below and len(point) >= longest:  # a later mount covers an earlier one
            found, longest = kind, len(point)
    return found
