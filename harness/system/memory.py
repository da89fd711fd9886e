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
_libc.process_vm_readv.restype = ctypes.c_ssize_t
PIECE_BYTES = 1 << 17
_buffer = (ctypes.c_char * PIECE_BYTES).from_buffer(mmap.mmap(-1, PIECE_BYTES))
"""Reused for every read: a fresh buffer would be filled with zeros each time, and this one stays in
the processor's cache. It is page-aligned, as writes past the page cache (`O_DIRECT`) need it."""
_view = memoryview(_buffer)
_place = ctypes.addressof(_buffer)
_here, _there = _Vector(_place, 0), _Vector(0, 0)
_BOTH = (ctypes.byref(_here), 1, ctypes.byref(_there), 1)


def read_bytes(thread: int, address: int, size: int) -> bytes:
    """Reads `size` bytes at `address` in the process of `thread`. Raises OSError if it is gone."""
    if size > PIECE_BYTES:
        return b"".join(bytes(piece) for piece in read_pieces(thread, [(address, size)]))
    if size:
        _here.length = _there.length = size
        _there.base = address
        _read(thread, size, _BOTH)
    return _view[:size].tobytes()


def read_pieces(thread: int, spans: Sequence[Span]) -> Iterator[memoryview]:
    """Yields the bytes of all spans in pieces; each piece is valid until the next one is requested.

    Raises OSError if memory cannot be read.
    """
    for part in in_pieces(spans):
        yield _view[: read_part(thread, _place, part)]


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


def in_pieces(spans: Sequence[Span]) -> Iterator[list[Span]]:
    """The spans of one piece after the other."""
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


def read_part(thread: int, place: int, part: Sequence[Span]) -> int:
    """Read some spans to one place; how many bytes they have. Raises OSError."""
    size = sum([length for _, length in part])
    there = (_Vector * len(part))(*(_Vector(*span) for span in part))
    here = _Vector(place, size)
    _read(thread, size, (ctypes.byref(here), 1, there, len(part)))
    return size


def _read(thread: int, size: int, vectors: tuple[object, int, object, int]) -> None:
    got: int = _libc.process_vm_readv(thread, *vectors, 0)
    if got != size:
        number = ctypes.get_errno()
        raise OSError(number, f"reading {size} bytes of thread {thread}: {os.strerror(number)}")
