"""The bytes of all writes of one run, in their order.

A large write is not copied here: its bytes stay in the file that it was made to, and are taken out
only when something is about to change them, or when the run is over. The supervisor makes every
change, so it knows when that is, and a digest shows whether anything else changed them. A
descriptor of its own keeps a file that has lost its name.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field

import xxhash

LARGE_BYTES = 1 << 16
"""From this size on, the bytes of a write stay where they were written."""

Inode = tuple[int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Left:
    """Bytes that are still only in their file."""

    reader: int
    path: str
    offset: int
    size: int
    digest: bytes

    def read(self) -> bytes:
        """Returns the bytes, with zeros for those that have gone."""
        data, at = bytearray(self.size), 0
        while at < self.size:
            got = os.preadv(self.reader, [memoryview(data)[at:]], self.offset + at)
            if got == 0:
                break
            at += got
        return bytes(data)


@dataclass(slots=True)
class Written:
    """The bytes of one run; an operation's `data` is the position at which its bytes begin here.

    `problems` names bytes that were found changed although no operation had changed them.
    """

    problems: list[str] = field(default_factory=list)
    _parts: list[bytes | _Left] = field(default_factory=list)
    _size: int = 0
    _readers: dict[Inode, int] = field(default_factory=dict)
    _in_file: dict[Inode, list[int]] = field(default_factory=dict)

    def __len__(self) -> int:
        return self._size

    def add(self, data: bytes) -> int:
        """Keep these bytes; returns the position at which they begin."""
        return self._append(data, len(data))

    def leave(self, own: int, offset: int, size: int, *, digest: bytes, path: str) -> int:
        """Keep what was just written through `own`; returns the position at which it begins."""
        inode = inode_of(own)
        if inode not in self._readers:
            self._readers[inode] = os.open(f"/proc/self/fd/{own}", os.O_RDONLY | os.O_CLOEXEC)
        self._in_file.setdefault(inode, []).append(len(self._parts))
        left = _Left(
            reader=self._readers[inode], path=path, offset=offset, size=size, digest=digest
        )
        return self._append(left, size)

    def before_change(self, inode: Inode, begin: int, end: int | None = None) -> None:
        """Note that bytes from `begin` to `end`, or to the end of the file, are about to change."""
        if not self._in_file:
            return
        for number in self._in_file.get(inode, ()):
            part = self._parts[number]
            if (
                isinstance(part, _Left)
                and part.offset + part.size > begin
                and (end is None or part.offset < end)
            ):
                self._parts[number] = self._take(part)

    def settle(self) -> None:
        """Take all bytes out of their files, and release these."""
        self._parts = list(self.parts())
        self.close()

    def close(self) -> None:
        """Release all files; bytes that were not taken out of them are lost."""
        for reader in self._readers.values():
            os.close(reader)
        self._readers.clear()
        self._in_file.clear()

    def parts(self) -> Iterator[bytes]:
        """Yields all bytes in order."""
        for part in self._parts:
            yield self._take(part) if isinstance(part, _Left) else part

    def __bytes__(self) -> bytes:
        return b"".join(self.parts())

    def _take(self, left: _Left) -> bytes:
        data = left.read()
        if xxhash.xxh3_64_digest(data) != left.digest:
            self.problems.append(
                f"{left.size} bytes at {left.offset} of {left.path} are not what was written there"
            )
        return data

    def _append(self, part: bytes | _Left, size: int) -> int:
        place = self._size
        self._parts.append(part)
        self._size += size
        return place


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
