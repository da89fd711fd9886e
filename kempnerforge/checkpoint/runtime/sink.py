"""Writes a new file once, from front to back, with a checksum, and makes it durable.

There are two ways to the disk. Most files go through the page cache, and writeback is started after
each MiB. Large files that training does not wait for bypass the page cache (``O_DIRECT``). The
cache would take memory for every byte: if that memory is new, it costs training more than the rest
of the flush (docs/performance.md), and it can evict what training reads.
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
# Blocks of 1, 4 and 16 MiB took equally long, within the noise.
_BLOCK_BYTES = 1 << 22
_SYNC_FILE_RANGE_WRITE = 2
# Looked up once: a look-up takes 8 us, and every MiB needs it.
_sync_file_range = getattr(ctypes.CDLL(None), "sync_file_range", None)
_NEW = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
_AGAIN = os.O_WRONLY | os.O_CLOEXEC
_MODE = 0o666
_O_DIRECT = getattr(os, "O_DIRECT", 0)
_CANNOT = frozenset({errno.EINVAL, errno.EOPNOTSUPP})
"""Errors of file systems that do not support O_DIRECT, or only with a larger alignment."""

_refusing: set[int] = set()
"""Devices that have raised these errors in this process, to avoid trying again for each file."""


class _File:
    """A new file, open for writing; its errors name its path.

    Args:
        path: Path of the file; an existing file is overwritten.
        flags: Additional flags for opening, such as ``O_DIRECT``.
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
        """Writes bytes; returns how many were written, which can be fewer than requested."""
        with named(self.path):
            return os.write(self._fd, view)

    def begin_writeback(self, offset: int, length: int) -> None:
        """Starts writeback of these bytes; only a hint: ``sync`` reports whether it succeeded."""
        if _sync_file_range is not None:
            place = ctypes.c_int64(offset), ctypes.c_int64(length)
            _sync_file_range(self._fd, *place, _SYNC_FILE_RANGE_WRITE)

    def reopen(self) -> int:
        """Continues at the same offset through the page cache; returns the offset in bytes.

        Clearing ``O_DIRECT`` with ``F_SETFL`` would not suffice: a FUSE file system may have passed
        the flag on when it opened its own file. The kernel reports a write error that was not yet
        reported to the next descriptor, so a sync of the new one also covers earlier writes.
        """
        with named(self.path):
            at = os.lseek(self._fd, 0, os.SEEK_CUR)
            old, self._fd = self._fd, os.open(self.path, _AGAIN)
            os.close(old)
            return os.lseek(self._fd, at, os.SEEK_SET)

    def device(self) -> int:
        """Device number of the file system."""
        with named(self.path):
            return os.fstat(self._fd).st_dev

    def sync(self) -> None:
        """Makes what was written durable."""
        with named(self.path):
            os.fsync(self._fd)

    def close(self) -> None:
        """Closes the file; a second call does nothing."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            with named(self.path):
                os.close(fd)


class _Way(Protocol):
    """A way to write bytes into an open file."""

    def put(self, view: memoryview) -> None:
        """Takes these bytes; the caller can reuse their memory afterwards."""

    def finish(self) -> None:
        """Writes everything that is still buffered."""


class _Closed:
    def put(self, view: memoryview) -> None:
        raise ValueError(f"{view.nbytes} bytes for a file that is closed")

    def finish(self) -> None:
        pass


class FileSink:
    """Writes a new file, which is durable when ``close`` returns.

    The checksum is computed as the bytes arrive, so it covers what the caller meant to write. The
    object is enough of a binary file for ``torch.save`` and ``pickle``. For one thread at a time.

    Args:
        path: Path of the file; an existing file is overwritten.
        direct: Bypass the page cache if the file system supports it.
    """

    def __init__(self, path: Path, *, direct: bool = False) -> None:
        self._file, self._way = _open(path, direct=direct and _O_DIRECT != 0)
        self._size = 0
        self._crc32 = 0
        self._error: OSError | None = None

    def write(self, data: bytes | bytearray | memoryview, *, crc32: int | None = None) -> int:
        """Appends ``data``; returns its length in bytes.

        Args:
            data: The bytes; the caller can reuse their memory afterwards.
            crc32: The crc32 of ``data``, if the caller has it already.
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
        """Returns the number of bytes written so far."""
        return self._size

    def flush(self) -> None:
        """Does nothing: ``close`` makes the file durable, and writing earlier has no benefit."""

    def close(self) -> None:
        """Makes the file durable and closes it; a second call does nothing."""
        if isinstance(self._way, _Closed):
            return
        try:
            if self._error is not None:
                raise self._taken_error()  # the caller ignored it: bytes are missing
            self._way.finish()
            self._file.sync()
        finally:
            self.abandon()

    def abandon(self) -> None:
        """Closes the file without making it durable; the file is unusable."""
        self._way = _Closed()
        self._file.close()

    @property
    def record(self) -> FileRecord:
        """Returns size and checksum of everything written."""
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
        """Returns the first error and drops it: the cycle with this file would keep its memory."""
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
    """Writes through the page cache; collects small pieces first.

    Args:
        file: The file to write to.
        begin: Offset in the file at which this begins, in bytes.
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
    """Writes past the page cache, in blocks that are page-aligned in memory and in the file.

    ``O_DIRECT`` writes must be page-aligned. So the last partial page, and everything after a write
    that was refused or incomplete, goes through the page cache.

    Args:
        file: The file, opened with ``O_DIRECT``.
        block: Shared memory from mmap. Private memory would not do: after a fork, a page that is
            being written could become the child's.
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
        """Writes the beginning of the block; the rest moves to the start of the next one."""
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
        """Continues through the page cache."""
        if self._cached is None:
            self._cached = _Cached(self._file, begin=self._file.reopen())
        return self._cached


def _copy(target: memoryview, source: memoryview) -> None:
    """Copies, if possible without the GIL, which training needs."""
    if source.readonly:
        target[:] = source
        return
    there, here = (ctypes.addressof(ctypes.c_char.from_buffer(one)) for one in (target, source))
    ctypes.memmove(there, here, source.nbytes)
