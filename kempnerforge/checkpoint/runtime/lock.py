"""One job at a time writes to a checkpoint directory.

Rank 0 holds ``flock`` on the checkpoint directory itself while its manager exists:

- The kernel releases it when the process ends, in whatever way, so a crash leaves nothing locked.
- A lock on the directory needs no file, neither during a run nor after it.
- The holder is recorded in an extended attribute of the directory (``user.kempnerforge.lock``),
  which no listing shows. It is a note for people: without the lock it means nothing.
- POSIX record locks (``fcntl``) would not be inherited by forked children, but are dropped when the
  process closes any descriptor of the same file, and every fsync of the directory closes one.
- ``flock`` belongs to the open file, which forked children (dataloader workers) share: a worker
  that outlives its parent would keep the lock. Hence children close the descriptor right after a
  fork. Children that exec do not have it (``O_CLOEXEC``).

A successful ``flock`` does not mean that other hosts are excluded, so how far it is trusted depends
on the type of the file system (:mod:`file_systems`):

===================  ==============================================================================
ext4, xfs, ...       the lock on the directory; if not supported, one on a file ``.lock`` in it
NFS, if not mounted  a lock on ``.lock``, which reaches other hosts, and one on the directory; the
with local locks     file is kept, because removing a lock file is a race
everything else      both locks if they can be taken, although they are not relied on, and a lease
                     (:mod:`lease`), which decides
===================  ==============================================================================

If there is a lease already, from any job, a lease is needed too.

Within a process the lock is shared, because managers of one process belong to one job. Loading
needs no lock: it cleans up what dead runs left only if it gets the lock at once, and never waits
for a lease.
"""

import errno
import fcntl
import json
import logging
import math
import os
import socket
import time
import weakref
from collections.abc import Generator
from contextlib import ExitStack, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

from kempnerforge.checkpoint.errors import CheckpointError, DirectoryInUseError, named
from kempnerforge.checkpoint.runtime import lease
from kempnerforge.checkpoint.runtime.file_systems import Mount, Reach, mount_of
from kempnerforge.checkpoint.runtime.lease import (
    BEAT_S,
    LEASE_S,
    FoundLease,
    Lease,
    LeaseTakenError,
)
from kempnerforge.checkpoint.runtime.lease_watch import (
    LOOK_S,
    MAY_ONLY_READ,
    LeaseWatch,
    WatchVerdict,
)
from kempnerforge.checkpoint.runtime.processes import Life, Process
from kempnerforge.checkpoint.runtime.sharing import share
from kempnerforge.checkpoint.runtime.worker import seconds_left

__all__ = ["LOCK_FILE", "DirectoryAccess", "DirectoryLock", "acquire"]

logger = logging.getLogger(__name__)

LOCK_FILE = ".lock"
_NOTE = "user.kempnerforge.lock"
# EBADF: NFS needs the descriptor open for writing; the others: no flock on this mount.
_CANNOT_LOCK = frozenset(
    {errno.EBADF, errno.EINVAL, errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EISDIR}
)
_POLL_S = 0.05
# A load in another process holds the lock while it removes what a dead run left.
_PATIENCE_S = 10.0
# If storage is slow for this long, it cannot be decided whether a holder is alive.
_MOST_WATCHED_S = 3 * LEASE_S
# Of the time for the first call of a save; the rest is for what follows.
_WATCHED_SHARE = 0.8

_said: set[Path] = set()


class DirectoryAccess:
    """Access to a directory on a mounted file system."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._lock: DirectoryLock | None = None
        self._brief: DirectoryLock | None = None
        self._watch: LeaseWatch | None = None

    def require(self) -> bool:
        if self._lock is not None:
            self._lock.confirm()
            return False
        self._watch = self._watch or LeaseWatch(self._root)
        most_s = max(0.0, seconds_left() * _WATCHED_SHARE)
        try:
            self._lock = acquire(
                self._root,
                patience_s=min(_PATIENCE_S, most_s),
                watch=self._watch,
                watch_s=min(_MOST_WATCHED_S, most_s),
            )
        except DirectoryInUseError:
            self._watch.watch_meanwhile()  # so that the next save can decide
            raise
        self._watch = None
        return True

    def confirm(self) -> None:
        if self._lock is not None:
            self._lock.confirm()

    def confirm_brief(self) -> None:
        if self._brief is not None:
            self._brief.confirm()

    def forget_loss(self) -> None:
        if self._lock is not None and self._lock.is_lost:
            self._lock = None

    def let_go(self) -> None:
        self._lock = None

    @contextmanager
    def briefly(self) -> Generator[bool, None, None]:
        watch = LeaseWatch(self._root)
        try:
            self._brief = acquire(self._root, watch=watch)
        except FileNotFoundError:
            pass  # nothing to change
        except CheckpointError as error:
            logger.info("%s is only read: %s", self._root, error)
            self._watch_for_a_save(watch)
        except OSError as error:
            if error.errno not in MAY_ONLY_READ:
                raise
            logger.info("%s is only read: %s", self._root, error)
        try:
            yield self._brief is not None
        finally:
            self._brief = None

    def _watch_for_a_save(self, watch: LeaseWatch) -> None:
        """Continues to watch a lease whose holder may be dead, which takes a while."""
        if watch.is_open and self._watch is None:
            self._watch = watch
            watch.watch_meanwhile()


class _HeldError(BlockingIOError):
    """Another process has the lock, or a lease."""

    def __init__(self, found: FoundLease | None) -> None:
        super().__init__(errno.EAGAIN, str(found))
        self.found = found
        """The lease, if it is a lease that prevents access."""


class DirectoryLock:
    """The lock of a directory, held until the last reference to it is gone or the process ends.

    Args:
        root: The checkpoint directory.
        watch: Knows which leases were abandoned by processes of other hosts.

    Raises:
        BlockingIOError: Another process holds it.
    """

    def __init__(self, root: Path, *, watch: LeaseWatch | None = None) -> None:
        self.root = root
        self.is_lost = False
        self._key = _identity(root)
        with ExitStack() as held:
            self._lease = _take(root, held, watch)
            if self._lease is not None:
                held.callback(self._lease.end)
            self._closing = weakref.finalize(self, held.pop_all().close)
        # The kernel releases locks by itself, but a lease is a file.
        self._closing.atexit = self._lease is not None
        _leave_note(root)

    def confirm(self) -> None:
        """Checks that the lock is still held.

        Raises:
            DirectoryInUseError: The lease was taken over, or its file was removed.
            OSError: This cannot be checked.
        """
        loss = None if self._lease is None else self._lease.loss()
        if loss is None:
            return
        self.is_lost = True
        self._closing()  # without the lease the locks are useless, and would keep others out
        if _held.get(self._key) is self:
            del _held[self._key]
        raise DirectoryInUseError(
            f"{self.root} is in use by another job: {loss}, so this job saves no more and changes "
            "nothing there; start it again, or load, once no other job uses the directory",
            path=str(self.root),
        )

    def disown(self) -> None:
        """Closes the descriptor in a forked child; the parent keeps the lock."""
        if self._lease is not None:
            self._lease.disown()
        self._closing()


_held: "weakref.WeakValueDictionary[tuple[int, int], DirectoryLock]" = weakref.WeakValueDictionary()


def _forget_in_child() -> None:
    for lock in list(_held.values()):
        lock.disown()
    _held.clear()


os.register_at_fork(after_in_child=_forget_in_child)


def _identity(root: Path) -> tuple[int, int]:
    status = root.stat()
    return status.st_dev, status.st_ino


def acquire(
    root: Path,
    *,
    patience_s: float = 0.0,
    watch: LeaseWatch | None = None,
    watch_s: float = 0.0,
) -> DirectoryLock:
    """Takes the lock of ``root``, which must exist; returns this process's lock if it has one.

    Not collective; called on rank 0. Keep the result for as long as the lock is needed.

    Args:
        root: The checkpoint directory.
        patience_s: Seconds to wait for a process that only cleans up before it loads.
        watch: Knows which holders of a lease on other hosts are dead.
        watch_s: Seconds to wait for the verdict of the watch.

    Raises:
        DirectoryInUseError: Another process holds it; the message names the process, if known.
    """
    key = _identity(root)
    watch = watch or LeaseWatch(root)
    began, has_said = time.monotonic(), False
    while True:
        held = _held.get(key)
        if held is not None:
            return held
        try:
            with named(root):
                _held[key] = lock = DirectoryLock(root, watch=watch)
        except _HeldError as error:
            doubtful = _is_doubtful(error.found, watch)
            most_s = max(patience_s, watch_s) if doubtful else patience_s
            if doubtful and most_s and not has_said:
                has_said = True
                logger.warning("%s: waiting to see whether %s is alive", root, error.found)
            if time.monotonic() - began >= most_s:
                raise _refusal(root, error.found, watch if doubtful else None) from None
            time.sleep(_POLL_S if error.found is None else LOOK_S / 4)
        else:
            return lock


def _is_doubtful(found: FoundLease | None, watch: LeaseWatch) -> bool:
    """Whether the holder of a lease may be dead, as far as is known now."""
    if found is None or found.life(Process.this()) is not Life.unknown:
        return False
    return watch.look() is not WatchVerdict.moves


def _refusal(root: Path, found: FoundLease | None, watch: LeaseWatch | None) -> DirectoryInUseError:
    holder = _holder(root) if found is None else f"{found} ({found.path.name})"
    still = ""
    if watch is not None:
        still = (
            f"; its lease has not been renewed for {math.floor(watch.still_s)} s of watching, and "
            f"counts as abandoned after {LEASE_S:.0f} s if storage responds"
        )
    return DirectoryInUseError(
        f"{root} is in use by another job: {holder}; two jobs must not write to one checkpoint "
        f"directory: end the other one, or choose another directory{still}",
        path=str(root),
    )


def _holder(root: Path) -> str:
    """Describes the last holder of the lock of ``root``."""
    note = _read_note(root)
    try:
        found = json.loads(note)
        return f"process {found['pid']} on {found['host']} since {found['since']}"
    except (ValueError, KeyError, TypeError):
        return "a process that left no note about itself"


def _take(root: Path, held: ExitStack, watch: LeaseWatch | None) -> Lease | None:
    """Takes all locks that ``root`` needs, and registers their release with ``held``.

    Returns:
        The lease, if one was needed.
    """
    fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    held.callback(_close, fd)
    mount = mount_of(fd)
    # Checked before this process takes a lock itself.
    if mount.reach is not Reach.everybody and _is_locked_below(root):
        raise _HeldError(None)
    by_directory = _flock(fd)
    by_file = False
    if not by_directory or mount.reach is not Reach.everybody:
        by_file = _flock_file(root, held)
    found = lease.find(root)
    if found is None and _is_enough(mount, by_directory=by_directory, by_file=by_file):
        if by_file:
            _say_once(root, f"{mount.type}: the lock on {LOCK_FILE} keeps other jobs out")
        return None
    taken = _take_lease(root, found, watch)
    _say_once(
        root,
        f"{mount.type or 'an unknown file system'}: locks are not known to keep other hosts out; a "
        f"lease does, {taken.path.name}, renewed every {BEAT_S:.0f} s",
    )
    return taken


def _say_once(root: Path, text: str) -> None:
    if root not in _said:
        _said.add(root)
        logger.info("%s: %s", root, text)


def _is_enough(mount: Mount, *, by_directory: bool, by_file: bool) -> bool:
    """Whether the locks that were taken exclude everyone."""
    if mount.reach is Reach.everybody:
        return by_directory or by_file
    return mount.reach is Reach.by_file and by_file


def _take_lease(root: Path, found: FoundLease | None, watch: LeaseWatch | None) -> Lease:
    if found is not None:
        is_gone = found.life(Process.this()) is Life.gone
        if not is_gone and not (watch is not None and watch.has_found_dead(found)):
            raise _HeldError(found)
    try:
        taken = lease.take(root, instead_of=found)
    except LeaseTakenError as error:
        raise _HeldError(error.found) from None
    if found is not None:
        logger.warning("%s was left by a dead job, %s, and is taken over", root, found)
    return taken


def _flock(fd: int) -> bool:
    """Locks an open file; returns False if the file system does not support that.

    Raises:
        _HeldError: Another process holds the lock.
    """
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise _HeldError(None) from None
    except OSError as error:
        if error.errno not in _CANNOT_LOCK:
            raise
        return False
    return True


def _flock_file(root: Path, held: ExitStack) -> bool:
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        fd = os.open(root / LOCK_FILE, flags, 0o666)
    except PermissionError:  # the file belongs to another user of the group
        return False
    held.callback(_close, fd)
    share(fd, like=root)
    return _flock(fd)


def _close(fd: int) -> None:
    with suppress(OSError):
        os.close(fd)


def _leave_note(root: Path) -> None:
    since = datetime.now(UTC).isoformat(timespec="seconds")
    note = {"host": socket.gethostname(), "pid": os.getpid(), "since": since}
    note |= {"boot": Process.this().boot, "inode": root.stat().st_ino}
    data = json.dumps(note).encode()
    try:
        os.setxattr(root, _NOTE, data)
    except OSError:  # no extended attributes here: the lock works without them
        with suppress(OSError):
            if (root / LOCK_FILE).exists():
                (root / LOCK_FILE).write_bytes(data)


def _is_locked_below(root: Path) -> bool:
    """Whether a process of this host has locked the directory through another mount of it.

    A FUSE mount shows the note but not the lock; the kernel's list of locks shows the latter.
    """
    try:
        note = json.loads(_read_note(root))
        same_host = note["boot"] and note["boot"] == Process.this().boot
        locks = Path("/proc/locks").read_text() if same_host else ""
        wanted = str(note["pid"]), str(note["inode"])
    except (OSError, ValueError, KeyError, TypeError):
        return False
    listed = (line.split() for line in locks.splitlines() if " FLOCK " in line)
    return any((fields[4], fields[5].rpartition(":")[2]) == wanted for fields in listed)


def _read_note(root: Path) -> bytes:
    try:
        return os.getxattr(root, _NOTE)
    except OSError:
        try:
            return (root / LOCK_FILE).read_bytes()
        except OSError:
            return b""
