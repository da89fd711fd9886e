"""The system call syncfs, which the standard library does not have.

What a rank or a replay syncs as a whole is the file system of its own checkpoint directory. sync(2)
would take those of all others along, among them disks whose power another session is about to cut.
"""

from __future__ import annotations

import ctypes
import os

_libc = ctypes.CDLL(None, use_errno=True)


def syncfs(path: str) -> int:
    """Make all of the file system durable that this path lies on; 0. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        result: int = _libc.syncfs(descriptor)
        number = ctypes.get_errno()
    finally:
        os.close(descriptor)
    if result < 0:
        raise OSError(number, os.strerror(number), path)
    return result
