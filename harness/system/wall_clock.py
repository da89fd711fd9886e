"""The wall clock of one process, which can be set apart from that of the machine.

A process asks for the time without a system call: the C library jumps into the vDSO, code that the
kernel maps into every process. Here the three functions of it that return the wall clock are
replaced by ones that make the system call and add the seconds at the beginning of their page. So
all code of the process sees another time, whatever language it is written in and however it was
imported.

Out of scope: clocks that only move forward (`CLOCK_MONOTONIC`), by which deadlines are kept; times
that the kernel writes down or waits for, such as those of files; machines that are not x86_64.
"""

from __future__ import annotations

import ctypes
import functools
import mmap
import os
import struct
import time
from pathlib import Path
from typing import Any

from harness.system.errors import HarnessError

_VDSO = "linux-vdso.so.1"
_EVERYTHING = mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC
_FAILED = ctypes.c_void_p(-1).value
_ANONYMOUS = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
_FUNCTIONS = {
    # clock_gettime(edi, rsi): CLOCK_REALTIME is 0, CLOCK_REALTIME_COARSE is 5.
    "__vdso_clock_gettime": "b8 e4 00 00 00 0f 05 85 c0 75 13 83 ff 05 74 04 85 ff 75 0a "
    "48 8b 0d {cell} 48 01 0e c3",
    # gettimeofday(rdi, rsi): rdi may be null.
    "__vdso_gettimeofday": "b8 60 00 00 00 0f 05 85 c0 75 0f 48 85 ff 74 0a "
    "48 8b 0d {cell} 48 01 0f c3",
    # time(rdi): the seconds are returned, and written to rdi if it is not null.
    "__vdso_time": "b8 c9 00 00 00 0f 05 48 03 05 {cell} 48 85 ff 74 03 48 89 07 c3",
}
_TOLERANCE_S = 60.0


def missing() -> str | None:
    """Returns None if a process can have a wall clock of its own here, else the reason."""
    if os.uname().machine != "x86_64":
        return f"a clock of its own needs x86_64; this is {os.uname().machine}"
    return None


class WallClock:
    """The wall clock of this process, `ahead` of the machine's by some seconds."""

    def __init__(self) -> None:
        # Not an object of Python's, which would unmap it before the process ends.
        page = _libc().mmap(None, mmap.PAGESIZE, _EVERYTHING, _ANONYMOUS, -1, 0)
        if page == _FAILED:
            raise HarnessError("no page can be written and executed here")
        self._ahead = ctypes.c_int64.from_address(page)
        vdso, place = ctypes.CDLL(_VDSO), 64
        _make_writable()
        for name, template in _FUNCTIONS.items():
            code = _assembled(template, place)
            ctypes.memmove(page + place, code, len(code))
            _jump(getattr(vdso, name), page + place)
            place += 64

    def set_ahead(self, seconds: int) -> None:
        """Set it so many seconds ahead of the machine's, or behind it if negative."""
        before = time.time() - self._ahead.value
        self._ahead.value = seconds
        if abs(time.time() - before - seconds) > _TOLERANCE_S:
            raise HarnessError("the wall clock of this process could not be set")


@functools.cache
def own_wall_clock() -> WallClock:
    """Returns that of this process. The first call must come before other threads exist."""
    return WallClock()


def _assembled(template: str, place: int) -> bytes:
    """Returns the machine code for its place in the page, which begins with the seconds."""
    head, _, tail = template.partition("{cell}")
    begin = bytes.fromhex(head)
    return begin + struct.pack("<i", -(place + len(begin) + 4)) + bytes.fromhex(tail)


def _jump(function: Any, to: int) -> None:
    """Have a function begin with a jump: movabs rax, to; jmp rax."""
    code = b"\x48\xb8" + struct.pack("<Q", to) + b"\xff\xe0"
    ctypes.memmove(function, code, len(code))


def _make_writable() -> None:
    """Let this process change its copy of the vDSO, which the kernel protects only as a whole."""
    maps = Path("/proc/self/maps").read_text(encoding="ascii").splitlines()
    found = next(line.split()[0] for line in maps if line.endswith("[vdso]"))
    begin, end = (int(one, 16) for one in found.split("-"))
    size = ctypes.c_size_t(end - begin)
    if _libc().mprotect(ctypes.c_void_p(begin), size, _EVERYTHING):
        raise HarnessError(f"the vDSO is read-only here: {os.strerror(ctypes.get_errno())}")


def _libc() -> Any:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype = ctypes.c_void_p
    libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
    return libc
