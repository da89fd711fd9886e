"""Watches a lease whose holder may be dead: is it renewed, and could a living holder renew it?

An unchanged file proves nothing if storage is slow, because a living holder could not change it
either. So each look at the lease also writes, syncs and removes a file beside it. Only an unbroken
series of looks counts, each completed within :data:`_PROMPT_S`. A look that took longer, failed, or
came late because the watcher itself was delayed starts the series again.

Out of scope: a holder whose own path to storage is slow while the watcher's is not. It loses the
lease, notices that before it changes anything, and saves no more.
"""

import errno
import logging
import os
import threading
import time
import weakref
from collections.abc import Callable
from contextlib import suppress
from enum import StrEnum
from pathlib import Path
from queue import SimpleQueue

from kempnerforge.checkpoint.errors import named
from kempnerforge.checkpoint.runtime.lease import (
    BEAT_S,
    LEASE_S,
    FoundLease,
    came_within,
    find,
    format_probe,
)

__all__ = ["LOOK_S", "MAY_ONLY_READ", "LeaseWatch", "WatchVerdict"]

logger = logging.getLogger(__name__)

LOOK_S = 1.0
"""Seconds between two looks."""
# Even with this delay, a holder would have renewed its lease several times within LEASE_S.
_PROMPT_S = BEAT_S
_MOST_LOOKS = 300

MAY_ONLY_READ = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})
"""Errors of a process that may read a directory but not write to it."""


class WatchVerdict(StrEnum):
    """The verdict of a watch."""

    watching = "watching"
    moves = "moves"
    """The lease was renewed, or taken by another job, during the watch."""
    dead = "dead"
    """Not renewed for :data:`LEASE_S`, while storage responded all the time."""


class LeaseWatch:
    """Watches the lease of one directory; thread-safe.

    Args:
        root: The directory.
        clock: Returns monotonic time in seconds.
        probe: Writes to the directory; an exception means trouble with storage.
    """

    def __init__(
        self,
        root: Path,
        *,
        clock: Callable[[], float] = time.monotonic,
        probe: Callable[[Path], None] | None = None,
    ) -> None:
        self._root = root
        self._clock = clock
        self._probe = probe or write_beside
        self._looking = threading.Lock()
        self._seen: FoundLease | None = None
        self._verdict = WatchVerdict.watching
        self._may_only_read = False
        self._thread: threading.Thread | None = None
        self._still_since = self._last_look = -float("inf")

    @property
    def still_s(self) -> float:
        """Seconds for which the lease is known not to have been renewed."""
        return 0.0 if self._seen is None else self._last_look - self._still_since

    @property
    def is_open(self) -> bool:
        """Whether there is a lease whose holder may still turn out to be dead."""
        is_undecided = self._seen is not None and self._verdict is WatchVerdict.watching
        return is_undecided and not self._may_only_read

    def look(self) -> WatchVerdict:
        """Looks once, unless another thread did within the last :data:`LOOK_S`."""
        with self._looking:
            if self._clock() - self._last_look >= LOOK_S:
                self._look()
            return self._verdict

    def has_found_dead(self, found: FoundLease) -> bool:
        """Whether the watch has shown that the holder of this lease, as it is now, is dead."""
        with self._looking:
            return self._verdict is WatchVerdict.dead and self._seen == found

    def watch_meanwhile(self) -> None:
        """Continues in a separate thread, until the verdict or the end of this object.

        It gives up after some minutes: by then storage is too slow for a verdict.
        """
        if not self.is_open or (self._thread is not None and self._thread.is_alive()):
            return
        ending: SimpleQueue[None] = SimpleQueue()
        weakref.finalize(self, ending.put, None).atexit = False
        thread = threading.Thread(
            target=_watch, args=(weakref.ref(self), ending), name="lease watch", daemon=True
        )
        with suppress(RuntimeError):  # the interpreter exits
            thread.start()
            self._thread = thread

    def _look(self) -> None:
        began, before = self._clock(), self._last_look
        try:
            found = find(self._root)
            self._probe(self._root)
        except OSError as error:
            logger.info("%s: cannot see whether its lease is renewed: %s", self._root, error)
            self._last_look = self._still_since = self._clock()
            self._may_only_read = error.errno in MAY_ONLY_READ
            return
        self._last_look = ended = self._clock()
        if found != self._seen:
            moves = self._seen is not None and found is not None
            self._verdict = WatchVerdict.moves if moves else WatchVerdict.watching
            self._seen, self._still_since = found, ended
        elif ended - began > _PROMPT_S or began - before > _PROMPT_S:
            if self._verdict is not WatchVerdict.dead:
                self._still_since = ended
        elif found is not None and ended - self._still_since >= LEASE_S:
            self._verdict = WatchVerdict.dead


def write_beside(root: Path) -> None:
    """Writes, syncs and removes a file in ``root``, like a holder that renews its lease."""
    path = root / format_probe()
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    fd = os.open(path, flags, 0o666)
    try:
        with named(path):
            os.write(fd, b"does storage answer?\n")
            os.fsync(fd)
    finally:
        os.close(fd)
        path.unlink(missing_ok=True)


def _watch(reference: "weakref.ref[LeaseWatch]", ending: "SimpleQueue[None]") -> None:
    """Looks repeatedly, and keeps the watch alive only during a look."""
    for _ in range(_MOST_LOOKS):
        if came_within(LOOK_S, ending):
            return
        watch = reference()
        if watch is None:
            return
        watch.look()
        if not watch.is_open:
            return
        del watch
