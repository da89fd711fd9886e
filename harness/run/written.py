"""The bytes of all writes of one run, in their order, on the disk.

A large write is not copied at once: its bytes stay in the file that it was made to, and are taken
out only when something is about to change them, or when the run is over. Bytes that were written
before are not stored again. The supervisor makes every change, so it knows when that is, and a
digest shows whether anything else changed them in the file that had them first. A file that has
lost its name is kept by a descriptor.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

import xxhash

from harness.content import CHUNK_BYTES
from harness.evidence.store import ByteStore, pread

LARGE_BYTES = 1 << 16
"""From this size on, the bytes of a write stay where they were written."""

Inode = tuple[int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Left:
    """Bytes that are still only in their file, and the place that waits for them."""

    place: int
    path: str
    offset: int
    size: int
    digest: bytes

    def touches(self, begin: int, end: int | None) -> bool:
        """Whether some of them are between two offsets of the file."""
        return self.offset + self.size > begin and (end is None or self.offset < end)


@dataclass(slots=True)
class _OpenFile:
    """A file with bytes that were left in it, and the descriptor to read them by."""

    reader: int
    left: list[_Left] = field(default_factory=list)
    end: int = 0
    """No byte was left from this offset on."""


class Written:
    """The bytes of one run; an operation's `data` is the position at which its bytes begin here.

    `problems` names bytes that were found changed although no operation had changed them.
    """

    def __init__(self, path: Path) -> None:
        self.problems: list[str] = []
        self._store = ByteStore(path)
        self._files: dict[Inode, _OpenFile] = {}
        self._places: dict[tuple[bytes, int], int] = {}

    def __len__(self) -> int:
        return len(self._store)

    def __getitem__(self, part: slice) -> bytes:
        """Bytes that were added, or taken out of their file."""
        return self._store[part]

    def add(self, data: bytes) -> int:
        """Keep these bytes; returns the position at which they begin."""
        return self._store.add(data)

    def leave(self, own: int, offset: int, size: int, *, digest: bytes, path: str) -> int:
        """Keep what was just written through `own`; returns the position at which it begins."""
        known = self._places.get((digest, size))
        if known is not None:
            return known
        inode = inode_of(own)
        if inode not in self._files:
            reader = os.open(f"/proc/self/fd/{own}", os.O_RDONLY | os.O_CLOEXEC)
            self._files[inode] = _OpenFile(reader)
        place = self._places[digest, size] = self._store.reserve(size)
        left = _Left(place=place, path=path, offset=offset, size=size, digest=digest)
        file = self._files[inode]
        file.left.append(left)
        file.end = max(file.end, offset + size)
        return place

    def before_change(self, inode: Inode, begin: int, end: int | None = None) -> None:
        """Note that bytes from `begin` to `end`, or to the end of the file, are about to change."""
        file = self._files.get(inode)
        if file is None or begin >= file.end:
            return  # so for most writes, which append
        untouched: list[_Left] = []
        for left in file.left:
            if left.touches(begin, end):
                self._take(file.reader, left)
            else:
                untouched.append(left)
        file.left = untouched
        if not untouched:
            os.close(self._files.pop(inode).reader)

    def settle(self) -> None:
        """Take all bytes out of their files, and release these.

        One file after the other, so that the disk gets back the space that only a descriptor kept.
        """
        while self._files:
            _, file = self._files.popitem()
            try:
                for left in file.left:
                    self._take(file.reader, left)
            finally:
                os.close(file.reader)
        self._store.flush()

    def close(self) -> None:
        """Release all files; bytes that were not taken out of them are lost."""
        for file in self._files.values():
            os.close(file.reader)
        self._files.clear()
        self._store.close()

    def _take(self, reader: int, left: _Left) -> None:
        digest = xxhash.xxh3_128()
        for start in range(0, left.size, CHUNK_BYTES):
            data = pread(reader, left.offset + start, min(CHUNK_BYTES, left.size - start))
            digest.update(data)
            self._store.fill(left.place + start, data)
        if digest.digest() != left.digest:
            self.problems.append(
                f"{left.size} bytes at {left.offset} of {left.path} are not what was written there"
            )


def inode_of(file: int | str) -> Inode:
    """Returns the identity of a file, whatever it is called."""
    status = os.stat(file)
    return status.st_dev, status.st_ino


def inode_at(path: str) -> Inode | None:
    """Returns the identity of what is at a path, or None if nothing is."""
    try:
        return inode_of(path)
    except OSError:
        return None
