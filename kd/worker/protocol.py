"""What a command and a worker say to each other, over a socket of the abstract namespace.

Such a socket has no file that could be left behind, but no permissions either: both sides ask the
kernel whose process the other is.

    command → worker    a Request and the descriptors of stdin, stdout and stderr
    worker → command    b"+" (a fork runs it) or b"-" (run it yourself)
    command → worker    the number of each signal that the command receives, one byte
    worker → command    the fork's exit status, one byte
"""

import json
import os
import socket
import struct
import sys
from collections.abc import Mapping
from typing import NamedTuple

ACCEPTED, REFUSED = b"+", b"-"
_CREDENTIALS = struct.Struct("3i")  # process, user, group
_LENGTH = struct.Struct("!I")
_STANDARD_STREAMS = (0, 1, 2)

# These differ between the jobs of a shell, and no library reads them while it is imported.
FREE = frozenset({"_", "SHLVL", "PWD", "OLDPWD", "TMPDIR", "CUDA_VISIBLE_DEVICES"})


class Request(NamedTuple):
    """A command to be run as it stands: a process is this, its open files and its code."""

    arguments: list[str]
    folder: str
    environment: dict[str, str]
    umask: int
    script_folder: str  # first in the search path for modules
    python: list[str]

    @classmethod
    def of_this_process(cls) -> "Request":
        """The command that this process is running."""
        umask = os.umask(0)
        os.umask(umask)
        folder, environment = os.getcwd(), dict(os.environ)
        return cls(sys.argv, folder, environment, umask, sys.path[0], interpreter())


def interpreter() -> list[str]:
    """What must be the same of two Python processes to import the same modules."""
    return [sys.executable, sys.version, str(tuple(sys.flags)), *sys.path[1:]]


def bound(environment: Mapping[str, str]) -> dict[str, str]:
    """The variables that libraries may read while they are imported."""
    return {name: value for name, value in environment.items() if name not in FREE}


def address(owner: int) -> str:
    """The worker's address; a leading zero byte makes it abstract."""
    return f"\0kd-worker-{os.getuid()}-{owner}"


def same_user(connection: socket.socket) -> bool:
    """Whether the other side belongs to this user."""
    found = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    return bool(_CREDENTIALS.unpack(found)[1] == os.getuid())


def send_request(connection: socket.socket, request: Request) -> None:
    """Send `request` and this process's standard streams."""
    content = json.dumps(request._asdict()).encode("utf-8", "surrogateescape")
    head = _LENGTH.pack(len(content))
    socket.send_fds(connection, [head], _STANDARD_STREAMS)
    connection.sendall(content)


def receive_request(connection: socket.socket) -> tuple[Request, list[int]]:
    """A request and the descriptors of its standard streams.

    Raises:
        OSError: the other side went away, or says something else.
        ValueError: no request.
    """
    head, streams, _, _ = socket.recv_fds(connection, _LENGTH.size, len(_STANDARD_STREAMS))
    if len(head) != _LENGTH.size or len(streams) != len(_STANDARD_STREAMS):
        for stream in streams:
            os.close(stream)
        raise OSError("no request")
    length = _LENGTH.unpack(head)[0]
    content = b""
    while len(content) < length:
        part = connection.recv(length - len(content))
        if not part:
            raise OSError("half a request")
        content += part
    return Request(**json.loads(content.decode("utf-8", "surrogateescape"))), streams
