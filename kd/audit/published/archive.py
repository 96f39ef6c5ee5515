"""Reading files of an archive that somebody else made: nothing outside it, nothing unbounded."""

import os
import stat
from pathlib import Path, PurePosixPath

from kd.audit.published.protocol import MalformedError
from kd.errors import DataError

MAX_BYTES = 256 * 2**20  # a hundred times the largest published file


class Archive:
    """The regular files below a folder. Links that leave it are listed, and not followed."""

    def __init__(self, root: Path) -> None:
        """Walk `root`.

        Raises:
            DataError: `root` is no folder.
        """
        if not root.is_dir():
            raise DataError(f"{root}: no such folder. Name the folder of an archive's results.")
        self._root = root.resolve()
        self.name = self._root.name or "/"
        self.files: list[PurePosixPath] = []
        self.refused: dict[PurePosixPath, str] = {}
        for folder, folders, names in os.walk(self._root, onerror=self._no_access):
            folders.sort()  # in place: decides the order of the walk
            for name in folders:
                if Path(folder, name).is_symlink():
                    self.refused[self._relative(Path(folder, name))] = (
                        "a symbolic link to a folder, not followed"
                    )
            for name in names:
                self._add(Path(folder, name))
        self.files.sort()
        self._known = frozenset(self.files)

    def __contains__(self, path: PurePosixPath) -> bool:
        return path in self._known

    def text(self, path: PurePosixPath) -> str:
        """The contents of one of `files`.

        Raises:
            MalformedError: it is too large, not UTF-8, or cannot be read.
        """
        try:
            if (self._root / path).stat().st_size > MAX_BYTES:
                raise MalformedError(f"larger than {MAX_BYTES // 2**20} MiB")
            return (self._root / path).read_bytes().decode("utf-8")
        except OSError as error:
            raise MalformedError(f"cannot be read ({error.strerror})") from None
        except UnicodeDecodeError as error:
            raise MalformedError(f"byte {error.start} is not UTF-8") from None

    def _add(self, path: Path) -> None:
        try:
            if path.is_symlink() and not path.resolve().is_relative_to(self._root):
                self.refused[self._relative(path)] = (
                    "a symbolic link that leaves the folder, not followed"
                )
            elif stat.S_ISREG(path.stat().st_mode):
                self.files.append(self._relative(path))
            else:
                self.refused[self._relative(path)] = "not a regular file"
        except (OSError, RuntimeError):  # a dangling link, or one to itself
            self.refused[self._relative(path)] = "a symbolic link to nothing"

    def _no_access(self, error: OSError) -> None:
        self.refused[self._relative(Path(error.filename))] = "cannot be listed"

    def _relative(self, path: Path) -> PurePosixPath:
        return PurePosixPath(path.relative_to(self._root))
