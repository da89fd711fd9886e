"""Messages over a socket with a process that can end at any time, which the socket reports."""

from __future__ import annotations

import socket
from contextlib import suppress

_LONGEST = 65536


def receive(link: socket.socket) -> tuple[bytes, list[int]]:
    """Returns the next message and the descriptors with it; nothing at the end.

    If the peer ended before it read everything, the kernel reports a broken connection once and
    first. Whatever the peer had sent can still be read after that.
    """
    try:
        message, descriptors, _, _ = socket.recv_fds(link, _LONGEST, 1)
    except ConnectionResetError:
        message, descriptors, _, _ = socket.recv_fds(link, _LONGEST, 1)
    return message, list(descriptors)


def send(link: socket.socket, message: bytes) -> None:
    """Send a message to a peer that may have ended; its end is reported by `receive`."""
    with suppress(OSError):
        link.send(message)
