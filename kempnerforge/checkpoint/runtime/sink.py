"""A new file that is written once, front to back: summed on the way, durable in the end.

Two ways lead to the disk. Most files go through the page cache, and the disk is told to begin after
each MiB. Large files that training does not wait for pass the page cache by (``O_DIRECT``): there
the kernel takes memory for every byte, which costs training more than the rest of a flush where it
has to be new (docs/performance.md), and may push out what training reads.
"""

import ctypes
import errno
import mmap
import os
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

from kempnerforge.checkpoint.errors import named
from kempnerforge.checkpoint.format import checksum
from kempnerforge.checkpoint.format.manifest import FileRecord
from kempnerforge.checkpoint.runtime import sharing

__all__ = ["FileSink"]

_BUFFER_BYTES = 1 << 18
_WRITEBACK_BYTES = 1 << 20
# Blocks of 1, 4 and 16 MiB took as long as each other here, within their noise.
_BLOCK_BYTES = 1 << 22
_SYNC_FILE_RANGE_WRITE = 2
# Looked up once: that takes 8 us, and every MiB asks for it.
_sync_file_range = getattr(ctypes.CDLL(None), "sync_file_range", None)
_NEW = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
_AGAIN = os.O_WRONLY | os.O_CLOEXEC
_MODE = 0o666
_O_DIRECT = getattr(os, "O_DIRECT", 0)
_CANNOT = frozenset({errno.EINVAL, errno.EOPNOTSUPP})
"""Errors of file systems that do not support O_DIRECT, or only with a larger alignment."""

_refusing: set[int] = set()
"""Devices that have answered so in this process, which are not asked for each file again."""


class _File:
    """A new file that is open for writing; every error of it names its path.

    Args:
        path: Of the file; one that is there is overwritten.
        flags: More than writing takes, such as ``O_DIRECT``.
    """

    def __init__(self, path: Path, flags: int = 0) -> None:
        self.path = path
        self._fd = os.open(path, _NEW | flags, _MODE)
        try:
            with named(path):
                sharing.share(self._fd, like=path.parent)
        except BaseException:
            os.close(self._fd)
            raise

    def write(self, view: memoryview) -> int:
        """How many bytes were taken, which may be fewer than were given."""
        with named(self.path):
            return os.write(self._fd, view)

    def begin_writeback(self, offset: int, length: int) -> None:
        """Let the disk begin with these bytes; a hint, the outcome of which ``sync`` tells."""
        if _sync_file_range is not None:
            place = ctypes.c_int64(offset), ctypes.c_int64(length)
            _sync_file_range(self._fd, *place, _SYNC_FILE_RANGE_WRITE)

    def reopen(self) -> int:
        """Go on at the same place through the page cache; returns that place, in bytes.

        Clearing ``O_DIRECT`` with ``F_SETFL`` would not do: a FUSE file system may have opened a
        file of its own with it, which keeps it. An error of a write that nobody has been told yet
        is told to the next descriptor, so a sync of that one speaks for what went before.
        """
        with named(self.path):
            at = os.lseek(self._fd, 0, os.SEEK_CUR)
            old, self._fd = self._fd, os.open(self.path, _AGAIN)
            os.close(old)
            return os.lseek(self._fd, at, os.SEEK_SET)

    def device(self) -> int:
        """Of the file system."""
        with named(self.path):
            return os.fstat(self._fd).st_dev

    def sync(self) -> None:
        """Make what was written durable."""
        with named(self.path):
            os.fsync(self._fd)

    def close(self) -> None:
        """Close; a second call does nothing."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            with named(self.path):
                os.close(fd)


class _Way(Protocol):
    """How bytes come into an open file."""

    def put(self, view: memoryview) -> None:
        """Take these bytes, which are not needed any more when this returns."""

    def finish(self) -> None:
        """Write what was only taken so far."""


class _Closed:
    def put(self, view: memoryview) -> None:
        raise ValueError(f"{view.nbytes} bytes for a file that is closed")

    def finish(self) -> None:
        pass


class FileSink:
    """Writes a new file, which is durable when ``close`` returns.

    The checksum is taken of the bytes as they arrive, so it vouches for what the caller meant to
    write. Looks enough like a binary file for ``torch.save`` and ``pickle``. One thread at a time.

    Args:
        path: Of the file; one that is there is overwritten.
        direct: Pass the page cache by, where the file system can.
    """

    def __init__(self, path: Path, *, direct: bool = False) -> None:
        self._file, self._way = _open(path, direct=direct and _O_DIRECT != 0)
        self._size = 0
        self._crc32 = 0
        self._error: OSError | None = None

    def write(self, data: bytes | bytearray | memoryview, *, crc32: int | None = None) -> int:
        """Append ``data``; returns its length in bytes.

        Args:
            data: Not needed any more when this returns.
            crc32: Of ``data``, where the caller has it already.
        """
        view = memoryview(data).cast("B")
        if crc32 is None:
            self._crc32 = checksum.crc32(view, self._crc32)
        else:
            self._crc32 = checksum.combine(self._crc32, crc32, view.nbytes)
        self._size += view.nbytes
        try:
            self._way.put(view)
        except OSError as error:
            self._error = self._error or error
            raise
        return view.nbytes

    def tell(self) -> int:
        """Bytes written so far."""
        return self._size

    def flush(self) -> None:
        """Nothing: durability is ``close``'s business, and earlier writes gain nothing."""

    def close(self) -> None:
        """Make the file durable and close it; a second call does nothing."""
        if isinstance(self._way, _Closed):
            return
        try:
            if self._error is not None:
                raise self._taken_error()  # that somebody passed over: bytes are missing
            self._way.finish()
            self._file.sync()
        finally:
            self.abandon()

    def abandon(self) -> None:
        """Close without making anything durable; the file is of no use."""
        self._way = _Closed()
        self._file.close()

    @property
    def record(self) -> FileRecord:
        """Size and checksum of everything written."""
        return FileRecord(size=self._size, crc32=self._crc32)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is None:
            self.close()
            return
        self.abandon()
        if self._error is not None and error is not self._error:
            # torch's archive writer turns a full disk into "unexpected pos 704 vs 598".
            raise self._taken_error() from error
        self._error = None

    def _taken_error(self) -> OSError:
        """The first error; an error that held the file that holds it would hold its memory, too."""
        error, self._error = self._error, None
        assert error is not None
        return error


def _open(path: Path, *, direct: bool) -> tuple[_File, _Way]:
    if direct and path.parent.stat().st_dev not in _refusing:
        block = mmap.mmap(-1, _BLOCK_BYTES)
        try:
            file = _File(path, _O_DIRECT)
        except OSError as error:
            if error.errno not in _CANNOT:
                raise
            _refusing.add(path.parent.stat().st_dev)
        else:
            return file, _Direct(file, block)
    file = _File(path)
    return file, _Cached(file)


class _Cached:
    """Through the page cache; small pieces are collected first.

    Args:
        file: To write to.
        begin: Where in the file that begins, in bytes.
    """

    def __init__(self, file: _File, *, begin: int = 0) -> None:
        self._file = file
        self._pending = bytearray()
        self._written = self._on_its_way = begin

    def put(self, view: memoryview) -> None:
        if len(self._pending) + view.nbytes > _BUFFER_BYTES:
            self.finish()
        if view.nbytes >= _BUFFER_BYTES:
            self._write(view)
        else:
            self._pending += view

    def finish(self) -> None:
        pending, self._pending = self._pending, bytearray()
        self._write(memoryview(pending))

    def _write(self, view: memoryview) -> None:
        for begin in range(0, view.nbytes, _WRITEBACK_BYTES):
            piece = view[begin : begin + _WRITEBACK_BYTES]
            while piece.nbytes:
                taken = self._file.write(piece)
                piece = piece[taken:]
                self._written += taken
            if self._written - self._on_its_way >= _WRITEBACK_BYTES:
                self._file.begin_writeback(self._on_its_way, self._written - self._on_its_way)
                self._on_its_way = self._written


class _Direct:
    """Past the page cache, in blocks that begin at a page in memory and in the file.

    What is no whole page in the end, and all that follows a write that was refused or took less
    than it was given, goes through the page cache: an ``O_DIRECT`` write may begin at a page only.

    Args:
        file: Opened with ``O_DIRECT``.
        block: Shared memory, as mmap gives it: after a fork, a page of private memory that is being
            written could become the child's.
    """

    def __init__(self, file: _File, block: mmap.mmap) -> None:
        self._file = file
        self._block = memoryview(block)
        self._filled = 0
        self._cached: _Cached | None = None

    def put(self, view: memoryview) -> None:
        while view.nbytes and self._cached is None:
            room = min(view.nbytes, _BLOCK_BYTES - self._filled)
            _copy(self._block[self._filled : self._filled + room], view[:room])
            self._filled += room
            view = view[room:]
            if self._filled == _BLOCK_BYTES:
                self._write(_BLOCK_BYTES)
        if self._cached is not None:
            self._cached.put(view)

    def finish(self) -> None:
        if self._cached is None:
            self._write(self._filled - self._filled % mmap.PAGESIZE)
        if self._cached is not None:
            self._cached.finish()

    def _write(self, size: int) -> None:
        """Write the begin of the block; what follows it begins the next one."""
        done = 0
        try:
            if size:
                done = self._file.write(self._block[:size])
        except OSError as error:
            if error.errno not in _CANNOT:
                raise
            _refusing.add(self._file.device())
        rest = self._block[done : self._filled]
        self._filled = 0
        if rest.nbytes:
            self._take_cache().put(rest)

    def _take_cache(self) -> "_Cached":
        """From here on through the page cache."""
        if self._cached is None:
            self._cached = _Cached(self._file, begin=self._file.reopen())
        return self._cached


def _copy(target: memoryview, source: memoryview) -> None:
    """Without the interpreter's lock where that is possible, since training waits for it."""
    if source.readonly:
        target[:] = source
        return
    there, here = (ctypes.addressof(ctypes.c_char.from_buffer(one)) for one in (target, source))
    ctypes.memmove(there, here, source.nbytes)
