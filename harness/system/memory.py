"""Reads the memory of a rank that waits in a system call."""

from __future__ import annotations

import ctypes
import mmap
import os
import struct
from collections.abc import Iterator, Sequence

_PAGE = os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 4096
_PATH_MAX = 4096
_MOST_SPANS = 1024
"""The most buffers that the kernel takes in one call (UIO_MAXIOV)."""

Span = tuple[int, int]
"""Address and number of bytes."""


class _Vector(ctypes.Structure):
    _fields_ = [("base", ctypes.c_void_p), ("length", ctypes.c_size_t)]


_libc = ctypes.CDLL(None, use_errno=True)
PIECE_BYTES = 1 << 18
_buffer = (ctypes.c_char * PIECE_BYTES).from_buffer(mmap.mmap(-1, PIECE_BYTES))
"""Reused for every read: a fresh buffer would be filled with zeros each time, and this one stays in
the processor's cache. It is page-aligned, as writes past the page cache (`O_DIRECT`) need it."""
_place = ctypes.addressof(_buffer)
_one = ctypes.c_ulong(1)


def read_bytes(thread: int, address: int, size: int) -> bytes:
    """Reads `size` bytes at `address` in the process of `thread`. Raises OSError if it is gone."""
    if size > PIECE_BYTES:
        return b"".join(bytes(piece) for piece in read_pieces(thread, [(address, size)]))
    if size:
        here, there = _Vector(_place, size), _Vector(address, size)
        _read(thread, here, ctypes.byref(there), 1)
    return ctypes.string_at(_place, size)


def read_pieces(thread: int, spans: Sequence[Span]) -> Iterator[memoryview]:
    """Yields the bytes of all spans in pieces; each piece is valid until the next one is requested.

    Raises OSError if memory cannot be read.
    """
    for part in _in_pieces(spans):
        size = sum(length for _, length in part)
        there = (_Vector * len(part))(*(_Vector(*span) for span in part))
        _read(thread, _Vector(_place, size), there, len(part))
        yield memoryview(_buffer)[:size]


def read_path(thread: int, address: int) -> str:
    """Returns the zero-terminated path at `address`; reads by page: the next may not be mapped."""
    text = b""
    while len(text) < _PATH_MAX:
        chunk = read_bytes(thread, address + len(text), _PAGE - (address + len(text)) % _PAGE)
        end = chunk.find(b"\0")
        if end >= 0:
            return os.fsdecode(text + chunk[:end])
        text += chunk
    raise OSError(36, f"a path of thread {thread} has no end within {_PATH_MAX} bytes")


def read_vector(thread: int, address: int, count: int) -> list[Span]:
    """Returns the spans that an iovec array of `count` entries names."""
    table = read_bytes(thread, address, 16 * count)
    return [(base, length) for base, length in struct.iter_unpack("=QQ", table)]


def first_bytes(spans: Sequence[Span], size: int) -> list[Span]:
    """Returns the spans of the first `size` bytes."""
    kept: list[Span] = []
    for base, length in spans:
        if size <= 0:
            break
        kept.append((base, min(length, size)))
        size -= length
    return kept


def _in_pieces(spans: Sequence[Span]) -> Iterator[list[Span]]:
    part: list[Span] = []
    room = PIECE_BYTES
    for base, length in spans:
        while length:
            taken = min(length, room)
            part.append((base, taken))
            base, length, room = base + taken, length - taken, room - taken
            if not room or len(part) == _MOST_SPANS:
                yield part
                part, room = [], PIECE_BYTES
    if part:
        yield part


def _read(thread: int, here: _Vector, there: object, count: int) -> None:
    got: int = _libc.process_vm_readv(
        thread, ctypes.byref(here), _one, there, ctypes.c_ulong(count), 0
    )
    if got != here.length:
        number = ctypes.get_errno()
        raise OSError(
            number, f"reading {here.length} bytes of thread {thread}: {os.strerror(number)}"
        )
