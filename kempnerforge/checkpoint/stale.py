"""Storage whose file handles go stale: the operation is tried again, a few times.

A network file system answers ESTALE when the file or directory behind a handle was replaced on the
server since this machine looked it up. The operation was not performed; a fresh look-up usually
succeeds. Every operation of :class:`Storage` begins with one, and writing a file begins with
truncating it, so all of them may be repeated. Any other error is raised at once.
"""

import errno
import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from kempnerforge.checkpoint.manifest import FileRecord
from kempnerforge.checkpoint.storage import Storage

__all__ = ["RetryingStorage", "again_if_stale"]

logger = logging.getLogger(__name__)

T = TypeVar("T")

# Attributes that NFS caches are looked up again after 3 s at the earliest by default (acregmin).
_PAUSES_S = (0.05, 0.2, 1.0, 3.0)


def again_if_stale(call: Callable[[], T], what: Path) -> T:
    """Result of ``call``, repeated while it raises ESTALE, at most four times within 4.3 s.

    Raises:
        OSError: Whatever ``call`` raises but ESTALE, and ESTALE after the last attempt.
    """
    for pause_s in _PAUSES_S:
        try:
            return call()
        except OSError as error:
            if error.errno != errno.ESTALE:
                raise
            logger.warning("%s: stale file handle; trying again in %s s", what, pause_s)
            time.sleep(pause_s)
    return call()


class RetryingStorage:
    """A :class:`Storage` each of whose operations is repeated where its handle was stale."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage

    def names(self, directory: Path) -> tuple[str, ...]:
        return again_if_stale(lambda: self._storage.names(directory), directory)

    def read(self, path: Path) -> bytes:
        return again_if_stale(lambda: self._storage.read(path), path)

    def size(self, path: Path) -> int:
        return again_if_stale(lambda: self._storage.size(path), path)

    def is_directory(self, path: Path) -> bool:
        return again_if_stale(lambda: self._storage.is_directory(path), path)

    def read_link(self, path: Path) -> str | None:
        return again_if_stale(lambda: self._storage.read_link(path), path)

    def resolve(self, path: Path) -> Path | None:
        return self._storage.resolve(path)  # a stale link leads nowhere, as any broken one

    def checksum(self, path: Path) -> FileRecord:
        return again_if_stale(lambda: self._storage.checksum(path), path)

    def make_directory(self, path: Path) -> None:
        again_if_stale(lambda: self._storage.make_directory(path), path)

    def make_durable_directory(self, path: Path) -> None:
        again_if_stale(lambda: self._storage.make_durable_directory(path), path)

    def write(self, path: Path, data: bytes) -> FileRecord:
        return again_if_stale(lambda: self._storage.write(path, data), path)

    def sync_directory(self, path: Path) -> None:
        again_if_stale(lambda: self._storage.sync_directory(path), path)

    def rename(self, source: Path, target: Path) -> None:
        again_if_stale(lambda: self._storage.rename(source, target), source)

    def exchange(self, one: Path, other: Path) -> bool:
        return again_if_stale(lambda: self._storage.exchange(one, other), one)

    def make_link(self, path: Path, target: str) -> None:
        again_if_stale(lambda: self._storage.make_link(path, target), path)

    def unlink(self, path: Path) -> None:
        again_if_stale(lambda: self._storage.unlink(path), path)

    def remove_tree(self, path: Path) -> None:
        again_if_stale(lambda: self._storage.remove_tree(path), path)
