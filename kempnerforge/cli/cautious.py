"""Storage for an untrusted directory: reads are bounded and never block."""

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from kempnerforge.checkpoint.errors import OddFileError, named
from kempnerforge.checkpoint.format import checksum
from kempnerforge.checkpoint.format.manifest import FileRecord
from kempnerforge.checkpoint.runtime.storage import LocalStorage

__all__ = ["MOST_READ_BYTES", "CautiousStorage", "FoundEntries", "walk"]

# The metadata of 2,048 ranks with 100 parameters takes 8 MB; this allows 30 times as much.
MOST_READ_BYTES = 256 << 20
_CHUNK_BYTES = 1 << 20
# Far more files than 2,048 ranks write; the listing of a larger directory is cut short.
_MOST_FILES = 200_000

_KINDS = {
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFDIR: "a directory",
}


class CautiousStorage(LocalStorage):
    """:class:`LocalStorage` that reads only regular files, and only up to a sensible size."""

    def read(self, path: Path) -> bytes:
        with _regular(path) as (fd, size):
            if size > MOST_READ_BYTES:
                raise OddFileError(errno.EFBIG, f"{size} bytes, more than are read", str(path))
            with open(fd, "rb", closefd=False) as file:
                return file.read(size)

    def size(self, path: Path) -> int:
        found = os.stat(path)  # noqa: PTH116  # one call for size and kind
        _require_regular(found, path)
        return found.st_size

    def checksum(self, path: Path) -> FileRecord:
        """Covers the size at opening, even if the file grows meanwhile."""
        with _regular(path) as (fd, size):
            crc32 = done = 0
            while done < size and (data := os.read(fd, min(_CHUNK_BYTES, size - done))):
                crc32 = checksum.crc32(data, crc32)
                done += len(data)
        return FileRecord(size=done, crc32=crc32)


@contextmanager
def _regular(path: Path) -> Iterator[tuple[int, int]]:
    """Yields the descriptor and the size of a regular file.

    The kind is checked before opening, because opening a device can have side effects, and again
    afterwards (the open does not block), in case the file was swapped for a pipe in between.
    """
    _require_regular(os.stat(path), path)  # noqa: PTH116  # the same call as on the descriptor
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    try:
        with named(path):  # errors of the caller's reads name the path as well
            found = os.fstat(fd)
            _require_regular(found, path)
            yield fd, found.st_size
    finally:
        os.close(fd)


def _require_regular(found: os.stat_result, path: Path) -> None:
    if not stat.S_ISREG(found.st_mode):
        kind = _KINDS.get(stat.S_IFMT(found.st_mode), "something else")
        raise OddFileError(errno.EINVAL, f"is {kind}, not a file", str(path))


class FoundEntries:
    """The entries of a checkpoint, found without following any link below it."""

    def __init__(self) -> None:
        self.files: dict[str, int] = {}
        """Size in bytes by path relative to the checkpoint; 0 for anything but a file."""
        self.unreadable: list[str] = []
        self.complete = True
        """False if the listing was cut short."""


def walk(root: Path) -> FoundEntries:
    """Lists the files below ``root``, a checkpoint or a link to one."""
    found = FoundEntries()
    pending = [""]
    while pending:
        prefix = pending.pop()
        try:
            with os.scandir(root / prefix) as entries:
                for entry in entries:
                    if len(found.files) + len(pending) >= _MOST_FILES:
                        found.complete = False
                        return found
                    _note(entry, prefix + entry.name, found, pending)
        except OSError as error:
            found.unreadable.append(f"{prefix or '.'}: {error.strerror or error}")
    return found


def _note(entry: os.DirEntry[str], name: str, found: FoundEntries, pending: list[str]) -> None:
    if entry.is_dir(follow_symlinks=False):
        pending.append(f"{name}/")
        return
    status = entry.stat(follow_symlinks=False)
    found.files[name] = status.st_size if stat.S_ISREG(status.st_mode) else 0
