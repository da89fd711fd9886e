"""Speaking over a socket with a process that may end at any time, and whose end is heard."""

from __future__ import annotations

import socket
from contextlib import suppress

_LONGEST = 65536


def hear(link: socket.socket) -> tuple[bytes, list[int]]:
    """The next message and the descriptors with it; nothing at the end.

    One that ended before it read all that it was told breaks the connection, as the kernel says
    once and first. What it had said is still to be heard.
    """
    try:
        message, descriptors, _, _ = socket.recv_fds(link, _LONGEST, 1)
    except ConnectionResetError:
        message, descriptors, _, _ = socket.recv_fds(link, _LONGEST, 1)
    return message, list(descriptors)


def say(link: socket.socket, message: bytes) -> None:
    """Say something to who may have ended, which is then heard."""
    with suppress(OSError):
        link.send(message)
