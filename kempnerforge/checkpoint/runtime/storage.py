"""Storage on a mounted file system, with revocable and concurrent calls."""

import ctypes
import errno
import os
import shutil
import stat
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

from kempnerforge.checkpoint.errors import StorageTimeoutError, named, shows_damage
from kempnerforge.checkpoint.format import checksum
from kempnerforge.checkpoint.format.manifest import FileRecord
from kempnerforge.checkpoint.protocol.storage import Stamp, Storage
from kempnerforge.checkpoint.runtime.file_systems import may_lag
from kempnerforge.checkpoint.runtime.sharing import share
from kempnerforge.checkpoint.runtime.sink import FileSink

__all__ = ["LocalStorage", "at_once", "checksum_file", "revocable"]

_READ_BYTES = 1 << 20
_AT_FDCWD = -100
_RENAME_EXCHANGE = 2
_CANNOT_EXCHANGE = frozenset(
    {errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EXDEV, errno.EPERM}
)

# Between two names in one directory, EXDEV never means two file systems.
_CANNOT_BE_RENAMED = (
    "it cannot be renamed even within its directory. On an overlay file system this happens if it "
    "comes from a lower layer: mount with redirect_dir=on, or keep checkpoints on a volume. On "
    "ext4 and xfs it happens if its project quota differs from that of the directory. A copy of it "
    "in its place can be renamed"
)


class LocalStorage:
    """:class:`Storage` on a mounted file system."""

    def names(self, directory: Path) -> tuple[str, ...]:
        try:
            with named(directory):
                return tuple(sorted(entry.name for entry in directory.iterdir()))
        except FileNotFoundError:
            return ()

    def scan(self, directory: Path) -> Mapping[str, int]:
        try:
            with named(directory), os.scandir(directory) as entries:
                return {entry.name: entry.inode() for entry in entries}
        except FileNotFoundError:
            return {}

    def read(self, path: Path) -> bytes:
        with named(path):
            return path.read_bytes()

    def size(self, path: Path) -> int:
        return path.stat().st_size

    def stamp(self, path: Path) -> Stamp | None:
        return _stamp(path)

    def stamps(self, directory: Path, files: Sequence[str]) -> Sequence[Stamp | None]:
        if not files:
            return ()
        fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            return [_stamp(directory / file, file, below=fd) for file in files]
        finally:
            os.close(fd)

    def is_directory(self, path: Path) -> bool:
        found = _status(path)
        return found is not None and stat.S_ISDIR(found.st_mode)

    def read_link(self, path: Path) -> str | None:
        found = _status(path)
        is_link = found is not None and stat.S_ISLNK(found.st_mode)
        return str(path.readlink()) if is_link else None

    def resolve(self, path: Path) -> Path | None:
        try:
            return path.resolve(strict=True)
        except RuntimeError:  # a cycle of links, before Python 3.13
            return None
        except OSError as error:
            if shows_damage(error):
                return None
            raise

    def read_small(self, path: Path, most_bytes: int) -> bytes | None:
        found = _status(path)
        if found is None or not stat.S_ISREG(found.st_mode) or found.st_size > most_bytes:
            return None
        try:  # without blocking, in case it was swapped for a pipe in between
            fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            if shows_damage(error):
                return None
            raise
        try:
            return os.read(fd, most_bytes)
        finally:
            os.close(fd)

    def checksum(self, path: Path) -> FileRecord:
        return checksum_file(path)

    def make_directory(self, path: Path) -> None:
        try:
            path.mkdir()
        except FileExistsError:
            if not path.is_dir():
                raise
        else:
            share(path, like=path.parent)

    def make_durable_directory(self, path: Path) -> None:
        missing = [folder for folder in (path, *path.parents) if not _leads_somewhere(folder)]
        path.mkdir(parents=True, exist_ok=True)
        for folder in missing:
            self.sync_directory(folder.parent)

    def write(self, path: Path, data: bytes) -> FileRecord:
        with FileSink(path) as sink:
            sink.write(data)
        return sink.record

    def sync_directory(self, path: Path) -> None:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            with named(path):
                os.fsync(fd)
        finally:
            os.close(fd)

    def rename(self, source: Path, target: Path) -> None:
        try:
            source.rename(target)
        except OSError as error:
            if error.errno == errno.EXDEV and source.parent == target.parent:
                error.strerror = f"{error.strerror}: {_CANNOT_BE_RENAMED}"
            raise

    def exchange(self, one: Path, other: Path) -> bool:
        libc = ctypes.CDLL(None, use_errno=True)
        if not hasattr(libc, "renameat2"):
            return False
        names = os.fsencode(one), os.fsencode(other)
        if libc.renameat2(_AT_FDCWD, names[0], _AT_FDCWD, names[1], _RENAME_EXCHANGE) == 0:
            return True
        code = ctypes.get_errno()
        if code in _CANNOT_EXCHANGE:
            return False
        raise OSError(code, os.strerror(code), str(one), None, str(other))

    def make_link(self, path: Path, target: str) -> None:
        path.symlink_to(target)

    def make_name(self, path: Path, existing: Path) -> None:
        os.link(existing, path, follow_symlinks=False)

    def unlink(self, path: Path) -> None:
        path.unlink(missing_ok=True)

    def remove_tree(self, path: Path) -> None:
        found = _status(path)
        if found is not None and stat.S_ISLNK(found.st_mode):
            path.unlink()
        elif found is not None:
            shutil.rmtree(path)

    def may_change(self, directory: Path) -> bool:
        return os.access(directory, os.W_OK | os.X_OK, effective_ids=True)

    def may_lag(self, path: Path) -> bool:
        return may_lag(path)

    def note(self, directory: Path, name: str) -> bytes | None:
        try:
            return os.getxattr(directory, name)
        except OSError:
            return None

    def leave_note(self, directory: Path, name: str, note: bytes) -> None:
        with suppress(OSError):
            os.setxattr(directory, name, note)


def _leads_somewhere(path: Path) -> bool:
    try:
        path.stat()
    except OSError as error:
        if shows_damage(error):
            return False
        raise
    return True


def _stamp(path: Path, name: str | None = None, *, below: int | None = None) -> Stamp | None:
    found = _status(path, name, below=below)
    if found is None:
        return None
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def _status(
    path: Path, name: str | None = None, *, below: int | None = None
) -> os.stat_result | None:
    """Returns the status of ``path`` itself, not of a link's target; None if nothing is there.

    Args:
        path: The path, used for errors and, without ``name``, for the look-up.
        name: The same file, relative to ``below``.
        below: Descriptor of an open directory.
    """
    try:
        return os.stat(path if name is None else name, dir_fd=below, follow_symlinks=False)
    except OSError as error:
        if shows_damage(error):
            return None
        error.filename = str(path)
        raise


def revocable(storage: Storage, *, revoked: Callable[[], bool]) -> Storage:
    """Wraps a storage for a call that can hang and be abandoned.

    When such a call wakes up, the directory has changed. Its further operations are refused with
    :class:`StorageTimeoutError`, deliberately not an OSError: callers tolerate some of those.
    """
    return cast("Storage", _Revocable(storage, revoked))


class _Revocable:
    def __init__(self, storage: Storage, revoked: Callable[[], bool]) -> None:
        self._storage = storage
        self._revoked = revoked

    def __getattr__(self, name: str) -> Any:
        if self._revoked():
            raise StorageTimeoutError(f"{name}: too late, this call was abandoned")
        return getattr(self._storage, name)


def at_once(*calls: Callable[[], object]) -> None:
    """Makes several calls that wait for storage concurrently, all but the first in new threads.

    Concurrent syncs share the journal's work. Returns when all calls have returned.

    Raises:
        BaseException: The error of the first failing call.
    """
    errors: list[BaseException | None] = [None] * len(calls)

    def make(number: int) -> None:
        try:
            calls[number]()
        except BaseException as error:  # noqa: BLE001  # raised below
            errors[number] = error

    threads = []
    for number in range(1, len(calls)):
        thread = threading.Thread(target=make, args=(number,), daemon=True)
        try:
            thread.start()
        except RuntimeError:  # the interpreter is shutting down and cannot start threads
            make(number)
        else:
            threads.append(thread)
    if calls:
        make(0)
    for thread in threads:
        thread.join()
    for error in errors:
        if error is not None:
            raise error


def checksum_file(path: Path) -> FileRecord:
    """Returns size and crc32 of a file, read from front to back."""
    size = crc32 = 0
    buffer = bytearray(_READ_BYTES)
    view = memoryview(buffer)
    with named(path), path.open("rb", buffering=0) as file:
        while count := file.readinto(view):
            crc32 = checksum.crc32(view[:count], crc32)
            size += count
    return FileRecord(size=size, crc32=crc32)
