"""What a disk refuses, said in one sentence: full, over quota, read-only, gone."""

import errno
import re

_CAUSES = {
    errno.ENOSPC: "no space is left on the device. Free some",
    errno.EDQUOT: "the quota is used up. Free some of it",
    errno.EFBIG: "the file is larger than this process may write. Raise the limit (`ulimit -f`)",
    errno.EROFS: "the file system is read-only. Make it writable",
    errno.EACCES: "permission is denied. Grant it",
    errno.EPERM: "the operation is not permitted. Permit it",
    errno.EIO: "the device reports an error. Mend or replace it",
    errno.ESTALE: "the file server has lost it. Mount it again",
    errno.ENOTCONN: "the file server is not connected. Mount it again",
}
_WRAPPED = re.compile(r"\(os error (\d+)\)")  # as safetensors and tokenizers say it


def storage_trouble(error: BaseException) -> str | None:
    """The sentence for an error behind which the disk stands, or None."""
    cause: BaseException | None = error
    while cause is not None:
        number = cause.errno if isinstance(cause, OSError) else None
        if number is None:
            found = _WRAPPED.search(str(cause))
            number = int(found[1]) if found else None
        if number in _CAUSES:
            names = [getattr(cause, name, None) for name in ("filename2", "filename")]
            place = names[0] or names[1] or "the output"  # of a copy, where it was to go
            return (
                f"{place}: {_CAUSES[number]} and run the same command again: what is finished "
                "stays, and nothing is half written."
            )
        cause = cause.__cause__ or cause.__context__
    return None
