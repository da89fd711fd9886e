"""Retries reads that fail for a transient reason, and operations whose handle is stale.

A failed read says nothing about the data, unless something is missing or has the wrong kind
(:func:`errors.shows_damage`). It changes nothing either, so it is retried: after a network outage,
a full descriptor table or a lack of memory, the next attempt often succeeds.

An operation that changes something is retried only if its handle was stale. A network file system
returns ESTALE if the file or directory behind a handle was replaced on the server since this
machine looked it up. The operation was not performed, and a new look-up usually succeeds. Every
operation of :class:`Storage` begins with a look-up, and writing a file begins with truncating it,
so all of them can be repeated. Any other error is raised at once: a failed sync has lost the data
that it was to write.

No pause outlasts the deadline of the worker that makes the call, so the ranks learn the error
itself, and not that storage was slow.
"""

import errno
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from kempnerforge.checkpoint.errors import shows_damage
from kempnerforge.checkpoint.format.manifest import FileRecord
from kempnerforge.checkpoint.protocol.effects import Clock
from kempnerforge.checkpoint.protocol.storage import Stamp, Storage
from kempnerforge.checkpoint.runtime.clock import SystemClock

__all__ = ["RetryingStorage", "again_if_passing", "again_if_stale"]

logger = logging.getLogger(__name__)

T = TypeVar("T")

# Attributes that NFS caches are looked up again after 3 s at the earliest by default (acregmin).
_PAUSES_S = (0.05, 0.2, 1.0, 3.0)
_SYSTEM = SystemClock()


def again_if_stale(call: Callable[[], T], what: Path, clock: Clock = _SYSTEM) -> T:
    """Returns the result of ``call``; retries on ESTALE, at most four times within 4.3 s.

    Raises:
        OSError: Any other error of ``call``, and ESTALE after the last attempt.
    """
    return _again(call, what, clock, when=_is_stale)


def again_if_passing(call: Callable[[], T], what: Path, clock: Clock = _SYSTEM) -> T:
    """Returns the result of a read; retries transient failures, at most as often.

    Raises:
        OSError: Something is missing or has the wrong kind (raised at once), or the last attempt
            failed too.
        MemoryError: Memory was still lacking at the last attempt.
    """
    return _again(call, what, clock, when=lambda error: not shows_damage(error))


def _is_stale(error: OSError | MemoryError) -> bool:
    return isinstance(error, OSError) and error.errno == errno.ESTALE


def _again(
    call: Callable[[], T],
    what: Path,
    clock: Clock,
    *,
    when: Callable[[OSError | MemoryError], bool],
) -> T:
    for pause_s in _PAUSES_S:
        try:
            return call()
        except (OSError, MemoryError) as error:
            # This leaves as much time again for the next attempt.
            if not when(error) or 2 * pause_s > max(0.0, clock.seconds_left()):
                raise
            reason = str(error) or type(error).__name__
            logger.warning("%s: %s; trying again in %s s", what, reason, pause_s)
        clock.sleep(pause_s)
    return call()


class RetryingStorage:
    """A :class:`Storage` that retries failed reads, and changes whose handle was stale."""

    def __init__(self, storage: Storage, clock: Clock = _SYSTEM) -> None:
        self._storage, self._clock = storage, clock

    def names(self, directory: Path) -> tuple[str, ...]:
        return again_if_passing(lambda: self._storage.names(directory), directory, self._clock)

    def scan(self, directory: Path) -> Mapping[str, int]:
        return again_if_passing(lambda: self._storage.scan(directory), directory, self._clock)

    def read(self, path: Path) -> bytes:
        return again_if_passing(lambda: self._storage.read(path), path, self._clock)

    def size(self, path: Path) -> int:
        return again_if_passing(lambda: self._storage.size(path), path, self._clock)

    def stamp(self, path: Path) -> Stamp | None:
        return again_if_passing(lambda: self._storage.stamp(path), path, self._clock)

    def stamps(self, directory: Path, files: Sequence[str]) -> Sequence[Stamp | None]:
        return again_if_passing(
            lambda: self._storage.stamps(directory, files), directory, self._clock
        )

    def is_directory(self, path: Path) -> bool:
        return again_if_passing(lambda: self._storage.is_directory(path), path, self._clock)

    def read_link(self, path: Path) -> str | None:
        return again_if_passing(lambda: self._storage.read_link(path), path, self._clock)

    def resolve(self, path: Path) -> Path | None:
        return again_if_passing(lambda: self._storage.resolve(path), path, self._clock)

    def read_small(self, path: Path, most_bytes: int) -> bytes | None:
        return again_if_passing(
            lambda: self._storage.read_small(path, most_bytes), path, self._clock
        )

    def checksum(self, path: Path) -> FileRecord:
        return again_if_passing(lambda: self._storage.checksum(path), path, self._clock)

    def make_directory(self, path: Path) -> None:
        again_if_stale(lambda: self._storage.make_directory(path), path, self._clock)

    def make_durable_directory(self, path: Path) -> None:
        again_if_stale(lambda: self._storage.make_durable_directory(path), path, self._clock)

    def write(self, path: Path, data: bytes) -> FileRecord:
        return again_if_stale(lambda: self._storage.write(path, data), path, self._clock)

    def sync_directory(self, path: Path) -> None:
        again_if_stale(lambda: self._storage.sync_directory(path), path, self._clock)

    def rename(self, source: Path, target: Path) -> None:
        again_if_stale(lambda: self._storage.rename(source, target), source, self._clock)

    def exchange(self, one: Path, other: Path) -> bool:
        return again_if_stale(lambda: self._storage.exchange(one, other), one, self._clock)

    def make_link(self, path: Path, target: str) -> None:
        again_if_stale(lambda: self._storage.make_link(path, target), path, self._clock)

    def make_name(self, path: Path, existing: Path) -> None:
        again_if_stale(lambda: self._storage.make_name(path, existing), path, self._clock)

    def unlink(self, path: Path) -> None:
        again_if_stale(lambda: self._storage.unlink(path), path, self._clock)

    def remove_tree(self, path: Path) -> None:
        again_if_stale(lambda: self._storage.remove_tree(path), path, self._clock)

    def may_change(self, directory: Path) -> bool:
        return again_if_passing(lambda: self._storage.may_change(directory), directory, self._clock)

    def may_lag(self, path: Path) -> bool:
        return again_if_passing(lambda: self._storage.may_lag(path), path, self._clock)

    def note(self, directory: Path, name: str) -> bytes | None:
        return again_if_passing(lambda: self._storage.note(directory, name), directory, self._clock)

    def leave_note(self, directory: Path, name: str, note: bytes) -> None:
        again_if_stale(
            lambda: self._storage.leave_note(directory, name, note), directory, self._clock
        )
