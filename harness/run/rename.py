"""The system call renameat2, which the standard library does not have."""

from __future__ import annotations

import ctypes
import os

EXCHANGE = 2

_AT_FDCWD = -100
_libc = ctypes.CDLL(None, use_errno=True)


def renameat2(source: str, target: str, flags: int) -> int:
    """Rename with flags: `EXCHANGE` lets two names change places. Raises OSError."""
    here = ctypes.c_int(_AT_FDCWD)
    names = (os.fsencode(source), os.fsencode(target))
    result: int = _libc.renameat2(here, names[0], here, names[1], ctypes.c_uint(flags))
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), source)
    return result
