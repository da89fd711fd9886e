"""Contents of files by reference: which bytes of which source, read only on demand."""

from __future__ import annotations

import hashlib
import io
from bisect import bisect_right
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, Protocol, TypeVar, cast

CHUNK_BYTES = 1 << 20
"""At most this much of a file is in memory at a time, whatever its size."""

_BLOCK_BYTES = 1 << 18
_FANOUT = 16

Fact = TypeVar("Fact")


class Bytes(Protocol):
    """A sequence of bytes: `bytes`, or a file that reads like it."""

    def __getitem__(self, part: slice, /) -> bytes:
        """Returns the bytes from `part.start` to `part.stop`."""


class _Extent(NamedTuple):
    """`size` bytes at offset `at` of a file: from `start` on in a source, or zeros."""

    at: int
    size: int
    source: Bytes | None
    start: int

    def between(self, begin: int, end: int) -> _Extent:
        """Returns the part of it between two offsets of the file."""
        first = max(self.at, begin)
        size = min(self.at + self.size, end) - first
        return _Extent(first, size, self.source, self.start + first - self.at)

    def read(self) -> bytes:
        if self.source is None:
            return bytes(self.size)
        return self.source[self.start : self.start + self.size]


class Content:
    """The bytes of one file at one time. They never change: a write makes another content.

    What was found out about the bytes is kept, so it is found out once.
    """

    __slots__ = ("_facts", "_pieces", "size")

    def __init__(self, pieces: tuple[_Extent, ...] = (), size: int = 0) -> None:
        self.size = size
        self._pieces = pieces
        self._facts: dict[str, Any] = {}

    @classmethod
    def of(cls, source: Bytes, start: int, size: int) -> Content:
        """Returns some bytes of a source."""
        return cls((_Extent(0, size, source, start),) if size else (), size)

    def overwritten(self, offset: int, data: Content) -> Content:
        """Returns these bytes after a write, with zeros in any gap that it leaves."""
        before = self if offset <= self.size else self.resized(offset)
        end = offset + data.size
        moved = tuple(one._replace(at=one.at + offset) for one in data._pieces)
        pieces = _joined(before._between(0, offset), moved) + before._between(end, before.size)
        return Content(pieces, max(before.size, end))

    def resized(self, size: int) -> Content:
        """Returns these bytes cut off at `size`, or extended to it with zeros."""
        pieces = self._between(0, size)
        if size > self.size:
            pieces += (_Extent(self.size, size - self.size, None, 0),)
        return Content(pieces, size)

    def followed(self, at: int, by: Content) -> Content:
        """Returns the first `at` bytes of these, followed by those of another content."""
        pieces = self._between(0, at) + by._between(at, by.size)
        return Content(pieces, max(min(at, self.size), by.size))

    def read(self, start: int = 0, size: int | None = None) -> bytes:
        """Returns some of the bytes, or all of them."""
        end = self.size if size is None else min(start + size, self.size)
        return b"".join([piece.read() for piece in self._between(start, end)])

    def chunks(self) -> Iterator[bytes]:
        """Yields all bytes in chunks."""
        for start in range(0, self.size, CHUNK_BYTES):
            yield self.read(start, CHUNK_BYTES)

    def write(self, path: Path) -> None:
        """Write a new file of the bytes; zeros that no write made take no room in it."""
        with path.open("xb") as file:
            for piece in self._pieces:
                if piece.source is not None:
                    for start in range(piece.at, piece.at + piece.size, CHUNK_BYTES):
                        file.seek(start)
                        file.write(piece.between(start, start + CHUNK_BYTES).read())
            file.truncate(self.size)

    def open(self) -> io.BufferedReader:
        """Returns a file of the bytes, of which only what is read is in memory."""
        return io.BufferedReader(_ContentFile(self))

    def digest(self) -> str:
        """Returns the BLAKE2b of the bytes (16 bytes, hexadecimal)."""
        return self.fact("digest", _digest)

    def fact(self, name: str, find: Callable[[Content], Fact]) -> Fact:
        """Returns the result of `find` for these bytes, found once."""
        if name not in self._facts:
            self._facts[name] = find(self)
        return cast(Fact, self._facts[name])

    def _between(self, begin: int, end: int) -> tuple[_Extent, ...]:
        pieces, end = self._pieces, min(end, self.size)
        if begin >= end:
            return ()
        if not begin and end == self.size:
            return pieces
        first = bisect_right(pieces, begin, key=_begin) - 1
        last = bisect_right(pieces, end - 1, key=_begin)
        if last - first == 1:
            return (pieces[first].between(begin, end),)
        inner = pieces[first + 1 : last - 1]
        return (pieces[first].between(begin, end), *inner, pieces[last - 1].between(begin, end))


class Identities:
    """Identifies equal contents, however they are composed.

    A digest is made of those of 16 equal parts, theirs of 16 smaller ones, and so on. Each part of
    a source is digested once, so thousands of contents that differ in one block each cost little
    more than one.
    """

    def __init__(self) -> None:
        self._known: dict[tuple[int, tuple[_Extent, ...]], bytes] = {}

    def of(self, content: Content) -> bytes:
        """Returns a value that is equal for equal bytes, and only for these."""
        return content.fact("identity", self._find)

    def _find(self, content: Content) -> bytes:
        span = _BLOCK_BYTES
        while span < content.size:
            span *= _FANOUT
        return self._part(content, 0, span) + content.size.to_bytes(8)

    def _part(self, content: Content, start: int, span: int) -> bytes:
        """Returns the digest of up to `span` bytes."""
        pieces = content._between(start, start + span)
        known = self._known.get((span, pieces))
        if known is None:
            hashed = hashlib.blake2b(digest_size=16)
            if span == _BLOCK_BYTES:
                hashed.update(b"".join([piece.read() for piece in pieces]))
            else:
                end = min(start + span, content.size)
                for begin in range(start, end, span // _FANOUT):
                    hashed.update(self._part(content, begin, span // _FANOUT))
            known = self._known[span, pieces] = hashed.digest()
        return known


def tensor_digest(data: Any) -> str:
    """Returns the digest of a tensor's bytes, which are in the buffer `data`.

    64 bits distinguish the few thousand digests of a run, and keep its records short.
    """
    return hashlib.blake2b(data, digest_size=8).hexdigest()


def _begin(piece: _Extent) -> int:
    return piece.at


def _joined(pieces: tuple[_Extent, ...], more: tuple[_Extent, ...]) -> tuple[_Extent, ...]:
    """Returns both, as one piece if they are adjacent in the same source."""
    if pieces and more:
        last, first = pieces[-1], more[0]
        if last.source is first.source is not None and last.start + last.size == first.start:
            whole = last._replace(size=last.size + first.size)
            return (*pieces[:-1], whole, *more[1:])
    return pieces + more


def _digest(content: Content) -> str:
    hashed = hashlib.blake2b(digest_size=16)
    for chunk in content.chunks():
        hashed.update(chunk)
    return hashed.hexdigest()


class _ContentFile(io.RawIOBase):
    """A content as a file."""

    def __init__(self, content: Content) -> None:
        super().__init__()
        self._content = content
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._content.size}[whence]
        self._at = max(0, start + offset)
        return self._at

    def readinto(self, buffer: Any) -> int:
        data = self._content.read(self._at, len(buffer))
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)
