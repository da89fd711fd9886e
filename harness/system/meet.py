"""The socket in a run directory through which shims find the supervisor."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

NAME = "rank_shims.socket"
_BACKLOG = 64


def listen(directory: Path) -> socket.socket:
    """Open the door: every process that connects is a shim."""
    door = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with _short(directory) as path:
        door.bind(path)
    door.listen(_BACKLOG)
    return door


def connect(directory: Path) -> socket.socket:
    """Connect to the supervisor. Raises OSError if there is none any more."""
    link = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with _short(directory) as path:
        link.connect(path)
    return link


def close(door: socket.socket, directory: Path) -> None:
    """Close the door: no shim is expected any more."""
    door.close()
    (directory / NAME).unlink(missing_ok=True)


@contextmanager
def _short(directory: Path) -> Iterator[str]:
    """Yields a name for the socket that fits into the 107 bytes of an address."""
    folder = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{folder}/{NAME}"
    finally:
        os.close(folder)
