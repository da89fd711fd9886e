"""Bytes in a file that read like `bytes`, so that memory holds only what is looked at."""

from __future__ import annotations

import os
import weakref
from collections.abc import Iterable
from pathlib import Path
from typing import Protocol

from harness.content import CHUNK_BYTES


class Sink(Protocol):
    """Keeps bytes, one after the other."""

    def add(self, data: bytes, /) -> int:
        """Keep these bytes; returns the position at which they begin."""

    def __len__(self) -> int:
        """Returns how many bytes there are."""


def add_all(sink: Sink, chunks: Iterable[bytes]) -> tuple[int, int]:
    """Keep some bytes in order; returns the position at which they begin, and their number."""
    place = len(sink)
    for chunk in chunks:
        sink.add(chunk)
    return place, len(sink) - place


def add_file(sink: Sink, path: Path) -> tuple[int, int]:
    """Keep the bytes of a file; returns their position and number."""
    with path.open("rb", buffering=0) as file:
        return add_all(sink, iter(lambda: file.read(CHUNK_BYTES), b""))


class StoredBytes:
    """The bytes of a file. The file stays open as long as this object lives."""

    def __init__(self, path: Path, flags: int = os.O_RDONLY) -> None:
        self._descriptor = os.open(path, flags | os.O_CLOEXEC, 0o644)
        self.close = weakref.finalize(self, os.close, self._descriptor)

    def __len__(self) -> int:
        return os.fstat(self._descriptor).st_size

    def __getitem__(self, part: slice) -> bytes:
        start = part.start or 0
        stop = len(self) if part.stop is None else part.stop
        return pread(self._descriptor, start, stop - start)


class ByteStore(StoredBytes):
    """A file to which bytes are added in chunks. It replaces one of the same name."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC)
        self._size = 0
        self._waiting = bytearray()
        self._waiting_at = 0

    def __len__(self) -> int:
        return self._size

    def __getitem__(self, part: slice) -> bytes:
        self.flush()
        return super().__getitem__(part)

    def add(self, data: bytes) -> int:
        """Keep these bytes; returns the position at which they begin."""
        if len(self._waiting) >= CHUNK_BYTES:
            self.flush()
        place = self._size
        self._waiting += data
        self._size += len(data)
        return place

    def reserve(self, size: int) -> int:
        """Reserve space for so many bytes, which `fill` writes; returns its position."""
        self.flush()
        place = self._size
        self._size = self._waiting_at = place + size
        os.ftruncate(self._descriptor, self._size)
        return place

    def fill(self, place: int, data: bytes) -> None:
        """Write bytes into reserved space."""
        pwrite(self._descriptor, place, data)

    def flush(self) -> None:
        """Write everything that was added to the file."""
        if self._waiting:
            pwrite(self._descriptor, self._waiting_at, self._waiting)
            self._waiting_at = self._size
            self._waiting = bytearray()


def pread(descriptor: int, start: int, size: int) -> bytes:
    """Returns bytes of a file; fewer at its end."""
    data = os.pread(descriptor, size, start) if size > 0 else b""
    while 0 < len(data) < size:
        more = os.pread(descriptor, size - len(data), start + len(data))
        if not more:
            break
        data += more
    return data


def pwrite(descriptor: int, start: int, data: bytes | bytearray) -> None:
    """Write all bytes."""
    with memoryview(data) as left:
        done = 0
        while done < len(data):
            done += os.pwrite(descriptor, left[done:], start + done)
