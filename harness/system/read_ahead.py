"""Reads the next bytes of a rank's memory while those before them are written.

A large write takes two copies, one out of the rank and one into the file. With a processor to spare
they run side by side. The rank waits in its call all the time, and the write is over when all of it
is: the order of operations knows nothing of the thread.
"""

from __future__ import annotations

import ctypes
import mmap
from collections.abc import Generator, Sequence
from queue import SimpleQueue
from threading import Thread
from typing import NamedTuple

import xxhash

from harness.system.memory import PIECE_BYTES, Span, in_pieces, read_part

_BUFFERS = 4


class _Filled(NamedTuple):
    """A buffer with a piece in it, and the digest of all bytes up to its end."""

    number: int
    size: int
    digest: xxhash.xxh3_128


class ReadAhead:
    """A thread that reads, from the first time that it is asked to until it is closed."""

    def __init__(self) -> None:
        self._wanted: SimpleQueue[tuple[int, Sequence[Span]] | None] = SimpleQueue()
        self._free: SimpleQueue[int | None] = SimpleQueue()
        self._filled: SimpleQueue[_Filled | Exception | None] = SimpleQueue()
        self._buffers: list[ctypes.Array[ctypes.c_char]] = []
        self._reader: Thread | None = None

    def pieces(
        self, thread: int, spans: Sequence[Span]
    ) -> Generator[tuple[memoryview, xxhash.xxh3_128]]:
        """The bytes of all spans, some at a time, with the digest of all until there; each piece is
        valid until the next one is asked for. Raises OSError where memory cannot be read."""
        if self._reader is None:
            self._start()
        self._wanted.put((thread, spans))
        try:
            while isinstance(found := self._filled.get(), _Filled):
                yield memoryview(self._buffers[found.number])[: found.size], found.digest
                self._free.put(found.number)
        except BaseException:  # the rest is not needed
            self.close()
            raise
        if found is not None:
            raise found

    def close(self) -> None:
        """End the thread, even if it still has bytes to read; `pieces` starts a new one."""
        if self._reader is not None:
            self._wanted.put(None)
            self._free.put(None)
            self._reader.join()
            self._reader = None

    def _start(self) -> None:
        self._wanted, self._free, self._filled = SimpleQueue(), SimpleQueue(), SimpleQueue()
        self._buffers = []
        for number in range(_BUFFERS):
            # They begin at a page, as writes past the page cache (`O_DIRECT`) need.
            pages = mmap.mmap(-1, PIECE_BYTES)
            self._buffers.append((ctypes.c_char * PIECE_BYTES).from_buffer(pages))
            self._free.put(number)
        self._reader = Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        while (wanted := self._wanted.get()) is not None:
            digest = xxhash.xxh3_128()
            try:
                for part in in_pieces(wanted[1]):
                    number = self._free.get()
                    if number is None:
                        return
                    buffer = self._buffers[number]
                    try:
                        size = read_part(wanted[0], ctypes.addressof(buffer), part)
                    except OSError:
                        self._free.put(number)
                        raise
                    digest.update(memoryview(buffer)[:size])
                    self._filled.put(_Filled(number, size, digest.copy()))
                self._filled.put(None)
            except Exception as error:  # noqa: BLE001 - it is raised where the pieces are asked for
                self._filled.put(error)
