"""The system calls renameat2 and syncfs, which the standard library does not have."""

from __future__ import annotations

import ctypes
import os

EXCHANGE = 2

_AT_FDCWD = -100
_libc = ctypes.CDLL(None, use_errno=True)


def renameat2(source: str, target: str, flags: int) -> int:
    """Rename with flags: `EXCHANGE` swaps two names. Raises OSError."""
    here = ctypes.c_int(_AT_FDCWD)
    names = (os.fsencode(source), os.fsencode(target))
    result: int = _libc.renameat2(here, names[0], here, names[1], ctypes.c_uint(flags))
    return _succeeded(result, source)


def syncfs(path: str) -> int:
    """Sync the whole file system that contains this path. Raises OSError.

    Used for a rank or a replay that syncs everything: sync(2) would also sync all other file
    systems, among them disks whose power another session is about to cut.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        result: int = _libc.syncfs(descriptor)
        return _succeeded(result, path)
    finally:
        os.close(descriptor)


def _succeeded(result: int, path: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), path)
    return result


def fsync(path: str) -> int:
    """Sync a file or a directory by its path; returns 0."""
    kind = os.O_DIRECTORY if os.path.isdir(path) else 0
    own = os.open(path, os.O_RDONLY | os.O_CLOEXEC | kind)
    try:
        os.fsync(own)
    finally:
        os.close(own)
    return 0
