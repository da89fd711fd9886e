"""Reading the memory of a rank that waits in a system call."""

from __future__ import annotations

import ctypes
import os
import struct

_PAGE = os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 4096
_PATH_MAX = 4096


class _Vector(ctypes.Structure):
    _fields_ = [("base", ctypes.c_void_p), ("length", ctypes.c_size_t)]


_libc = ctypes.CDLL(None, use_errno=True)
_BUFFER_BYTES = 1 << 16
_buffer = ctypes.create_string_buffer(_BUFFER_BYTES)
"""Read into again and again: a fresh one would be filled with zeros each time."""
_one = ctypes.c_ulong(1)


def read_bytes(thread: int, address: int, size: int) -> bytes:
    """`size` bytes at `address` in the process of `thread`. Raises OSError if it is gone."""
    if size == 0:
        return b""
    buffer = _buffer if size <= _BUFFER_BYTES else ctypes.create_string_buffer(size)
    place = ctypes.addressof(buffer)
    here, there = _Vector(place, size), _Vector(address, size)
    got: int = _libc.process_vm_readv(
        thread, ctypes.byref(here), _one, ctypes.byref(there), _one, 0
    )
    if got != size:
        number = ctypes.get_errno()
        raise OSError(number, f"reading {size} bytes of thread {thread}: {os.strerror(number)}")
    return ctypes.string_at(place, size)


def read_path(thread: int, address: int) -> str:
    """The zero-ended path at `address`, read page by page because the next may not be mapped."""
    text = b""
    while len(text) < _PATH_MAX:
        chunk = read_bytes(thread, address + len(text), _PAGE - (address + len(text)) % _PAGE)
        end = chunk.find(b"\0")
        if end >= 0:
            return os.fsdecode(text + chunk[:end])
        text += chunk
    raise OSError(36, f"a path of thread {thread} has no end within {_PATH_MAX} bytes")


def read_vector(thread: int, address: int, count: int) -> bytes:
    """The bytes that an iovec array of `count` entries points to."""
    table = read_bytes(thread, address, 16 * count)
    parts = struct.iter_unpack("=QQ", table)
    return b"".join(read_bytes(thread, base, length) for base, length in parts)
