"""One job at a time writes to a checkpoint directory.

Rank 0 holds ``flock`` on the checkpoint directory itself while its manager lives. The reasons:

- The kernel lets go of it when the process ends, however it ends, so a crash leaves nothing stuck.
- A lock on the directory leaves no file behind, neither during a run nor after it.
- Who holds it stands in an extended attribute of the directory (``user.kempnerforge.lock``), which
  no listing shows. It is a note for people: a stale one means nothing without the lock.
- POSIX record locks (``fcntl``) would not be inherited by forked children, but are dropped when the
  process closes any descriptor of the same file, and every fsync of the directory closes one.
- ``flock`` belongs to the open file, which forked children (dataloader workers) share: a worker
  that outlives its parent would keep the lock. Hence children close the descriptor right after a
  fork. Children that are exec'ed do not have it (``O_CLOEXEC``).

Where a directory cannot be locked (NFS needs a descriptor that is open for writing, some Lustre
mounts have no flock), a hidden file ``.lock`` in it is locked instead; NFS carries that to other
machines. It stays, because removing a lock file is a race. Where that does not work either, a
warning says that two jobs on this directory would not be noticed.

Within a process the lock is shared: managers of one process belong to one job. Loading needs no
lock; it only cleans up what dead runs left if it gets one.
"""

import errno
import fcntl
import json
import logging
import os
import socket
import time
import weakref
from collections.abc import Generator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

from kempnerforge.checkpoint.errors import CheckpointError, DirectoryInUseError

__all__ = ["LOCK_FILE", "DirectoryAccess", "DirectoryLock", "Unlocked", "WriteAccess", "acquire"]

logger = logging.getLogger(__name__)

LOCK_FILE = ".lock"
_NOTE = "user.kempnerforge.lock"
# EBADF: NFS wants the descriptor open for writing; the rest: no flock on this mount.
_CANNOT_LOCK = frozenset(
    {errno.EBADF, errno.EINVAL, errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EISDIR}
)
_MAY_ONLY_READ = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})
_POLL_S = 0.05
# A load of another process holds the lock while it removes what a dead run left.
_PATIENCE_S = 10.0


class WriteAccess(Protocol):
    """The right to change one checkpoint directory; for rank 0."""

    def require(self) -> None:
        """Have it from now on.

        Raises:
            DirectoryInUseError: Another job has it.
        """

    def briefly(self) -> AbstractContextManager[bool]:
        """Have it within the context, if nobody else does: whether that is so.

        Raises:
            OSError: That cannot be found out at present, for want of descriptors say.
        """

    def let_go(self) -> None:
        """The directory has another one's place now: :meth:`require` is asked anew."""


class Unlocked:
    """Access to a directory that nobody else can reach."""

    def require(self) -> None:
        """There is nobody to exclude."""

    def briefly(self) -> AbstractContextManager[bool]:
        return nullcontext(enter_result=True)

    def let_go(self) -> None:
        """There is nothing to let go of."""


class DirectoryAccess:
    """Access to a directory on a mounted file system."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._lock: DirectoryLock | None = None

    def require(self) -> None:
        if self._lock is None:
            self._lock = acquire(self._root, patience_s=_PATIENCE_S)

    def let_go(self) -> None:
        self._lock = None

    @contextmanager
    def briefly(self) -> Generator[bool, None, None]:
        lock = None
        try:
            lock = acquire(self._root)
        except FileNotFoundError:
            pass  # nothing to change
        except CheckpointError as error:
            logger.info("%s is only read: %s", self._root, error)
        except OSError as error:
            if error.errno not in _MAY_ONLY_READ:
                raise
            logger.info("%s is only read: %s", self._root, error)
        try:
            yield lock is not None
        finally:
            del lock


class DirectoryLock:
    """Held from construction until the last reference to it, or the process, ends.

    Raises:
        BlockingIOError: Another process holds it.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._fd = _lock_directory(root)
        self._closing = weakref.finalize(self, _close, self._fd)
        self._closing.atexit = False  # the kernel does it
        if self._fd >= 0:
            _leave_note(root)

    def disown(self) -> None:
        """In a forked child: close the descriptor, the lock stays with the parent."""
        self._closing()


_held: "weakref.WeakValueDictionary[tuple[int, int], DirectoryLock]" = weakref.WeakValueDictionary()


def _forget_in_child() -> None:
    for lock in list(_held.values()):
        lock.disown()
    _held.clear()


os.register_at_fork(after_in_child=_forget_in_child)


def acquire(root: Path, *, patience_s: float = 0.0) -> DirectoryLock:
    """The lock of ``root``, which must exist; this process's, if it has it already.

    Not collective; for rank 0. Keep what is returned for as long as the lock is needed.

    Args:
        root: The checkpoint directory.
        patience_s: Seconds to wait for a process that only cleans up before it loads.

    Raises:
        DirectoryInUseError: Another process holds it; the message says which, as far as known.
    """
    status = root.stat()
    key = (status.st_dev, status.st_ino)
    deadline = time.monotonic() + patience_s
    while True:
        held = _held.get(key)
        if held is not None:
            return held
        try:
            _held[key] = lock = DirectoryLock(root)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                raise DirectoryInUseError(
                    f"{root} is in use by another job: {_holder(root)}; two jobs must not write to "
                    "one checkpoint directory: end the other one, or choose another directory",
                    path=str(root),
                ) from None
            time.sleep(_POLL_S)
        else:
            return lock


def _holder(root: Path) -> str:
    """Who last took the lock of ``root``, in words."""
    note = _read_note(root)
    try:
        found = json.loads(note)
        return f"process {found['pid']} on {found['host']} since {found['since']}"
    except (ValueError, KeyError, TypeError):
        return "a process that left no note about itself"


def _lock_directory(root: Path) -> int:
    """A descriptor that holds the lock, or -1 where this file system has none."""
    try:
        return _flock(root, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        if error.errno not in _CANNOT_LOCK:
            raise
    try:
        return _flock(root / LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW)
    except OSError as error:
        if error.errno not in _CANNOT_LOCK:
            raise
        logger.warning(
            "%s: no locks on this file system (%s); a second job on this directory would not be "
            "noticed",
            root,
            error.strerror,
        )
        return -1


def _flock(path: Path, flags: int) -> int:
    fd = os.open(path, flags | os.O_CLOEXEC, 0o666)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BaseException:
        os.close(fd)
        raise
    return fd


def _close(fd: int) -> None:
    if fd >= 0:
        with suppress(OSError):
            os.close(fd)


def _leave_note(root: Path) -> None:
    since = datetime.now(UTC).isoformat(timespec="seconds")
    note = {"host": socket.gethostname(), "pid": os.getpid(), "since": since}
    data = json.dumps(note).encode()
    try:
        os.setxattr(root, _NOTE, data)
    except OSError:  # no extended attributes here: the lock works without
        if (root / LOCK_FILE).exists():
            (root / LOCK_FILE).write_bytes(data)


def _read_note(root: Path) -> bytes:
    try:
        return os.getxattr(root, _NOTE)
    except OSError:
        try:
            return (root / LOCK_FILE).read_bytes()
        except OSError:
            return b""
