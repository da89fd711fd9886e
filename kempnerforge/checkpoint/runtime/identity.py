"""Checks that the checkpoint directory is still the one that a manager began with.

A path can change its meaning: a mount disappears (``umount -l``, a lost server), a directory is
moved or deleted, or a link is changed. Then the path leads to another directory, to an empty one on
the root disk, or nowhere. A save that continued there would succeed, without the lock and away from
all earlier checkpoints. So each rank remembers device and inode when it first finds the directory.
It compares them before a save or a load, and within a save before it writes, before it publishes
and afterwards. A difference is refused on all ranks; nothing is created again.

Device and inode identify a directory only *while it is held*. A descriptor (``O_PATH``, which opens
nothing on a server) prevents the inode from being reused for another directory, a FUSE file system
from forgetting and renumbering it, and an automounter from unmounting it between two saves. Each
rank compares with its own numbers, because each host numbers its devices separately.

A remount of the same storage has another device, and on FUSE other inodes, but is the same
directory. It is accepted, with a line in the log, under three conditions: the mount has the same
type and source; the inode is the same, or the type is FUSE; and the newest checkpoint that this
manager has saved or loaded is there, with its save id. With ``follow_moved_dir`` the last condition
suffices, so that a run can continue in a directory that was moved or copied to the same path.
Either way the lock is taken again.

Out of scope: the path can change between a comparison and the operation after it. Everything that a
save writes lies below its staging directory, which exists only in the compared directory, so that
operation fails. Only ``latest`` could be created in the wrong place, which the last comparison
detects. A client that caches names (NFS: 30 to 60 s) notices the change with that delay.
"""

import os
import stat
import weakref
from contextlib import suppress
from dataclasses import dataclass
from logging import getLogger
from pathlib import Path

from kempnerforge.checkpoint.errors import (
    DirectoryChangedError,
    named,
    shows_damage,
)
from kempnerforge.checkpoint.format import layout
from kempnerforge.checkpoint.protocol.catalog import look_at
from kempnerforge.checkpoint.protocol.effects import WriteAccess
from kempnerforge.checkpoint.protocol.reachable import require_reachable
from kempnerforge.checkpoint.protocol.storage import Storage
from kempnerforge.checkpoint.runtime.file_systems import Mount, mount_of
from kempnerforge.checkpoint.runtime.stale import again_if_passing

__all__ = ["DirectoryIdentity"]

logger = getLogger(__name__)

_HOLDING = getattr(os, "O_PATH", os.O_RDONLY) | os.O_DIRECTORY | os.O_CLOEXEC


@dataclass(frozen=True, slots=True, kw_only=True)
class _SeenDirectory:
    """The directory found at the path, and its numbers."""

    device: int
    inode: int
    mount: Mount

    def __str__(self) -> str:
        numbers = f"device {os.major(self.device)}:{os.minor(self.device)}, inode {self.inode}"
        return f"{numbers} on {self.mount}" if self.mount.type else numbers


class DirectoryIdentity:
    """Identity of a directory on a mounted file system, held from the first look on.

    Args:
        root: The checkpoint directory; a link to it is followed.
        access: The lock of the directory, released before the run continues in another one.
        follow: Whether to accept any directory that holds the newest known checkpoint.
    """

    def __init__(self, root: Path, access: WriteAccess, *, follow: bool = False) -> None:
        self._root = root
        # The trailing "." makes an automounter mount the directory.
        self._path = f"{root}{os.sep}."
        self._access = access
        self._follow = follow
        self._began: _SeenDirectory | None = None
        self._newest: tuple[int, str] | None = None
        self._held: weakref.finalize[..., DirectoryIdentity] | None = None
        _holding.add(self)

    def note(self, step: int, save_id: str) -> None:
        """Records a checkpoint saved or loaded here, by which to recognise the directory."""
        self._newest = step, save_id

    def confirm(self, storage: Storage) -> bool:
        found = self._look()
        if found is None and self._began is None:
            return False
        if self._began is None:
            self._began = self._hold()
        elif found != (self._began.device, self._began.inode):
            self._take_up(self._began, storage)
        return True

    def require_same(self) -> None:
        found = self._look()
        if self._began is None:
            self._began = None if found is None else self._hold()
        elif found != (self._began.device, self._began.inode):
            raise self._changed(self._began, None if found is None else self._describe())

    def let_go(self) -> None:
        """Closes the descriptor in a forked child; the parent keeps its own."""
        held, self._held = self._held, None
        if held is not None:
            held()

    def _look(self) -> tuple[int, int] | None:
        """Returns device and inode of whatever is at the path now; None if nothing is."""

        def look() -> tuple[int, int] | None:
            try:
                found = os.stat(self._path)  # noqa: PTH116  # a Path has no trailing dot
            except OSError as error:
                if shows_damage(error):
                    return None
                raise
            return found.st_dev, found.st_ino

        return again_if_passing(look, self._root)

    def _hold(self) -> _SeenDirectory:
        """Opens the directory at the path, so that its numbers stay valid."""
        self.let_go()
        try:
            fd = os.open(self._path, _HOLDING)
        except (
            OSError
        ) as error:  # out of descriptors, say: the numbers alone are less certain, but serve
            logger.info("%s is compared, but not held open: %s", self._root, error)
            return self._describe()
        self._held = weakref.finalize(self, _close, fd)
        self._held.atexit = False  # the kernel does it
        with named(self._root):
            return _seen(os.fstat(fd), fd)

    def _describe(self) -> _SeenDirectory:
        try:
            fd = os.open(self._path, _HOLDING)
        except OSError:
            return _seen(os.stat(self._path), None)  # noqa: PTH116  # a Path has no trailing dot
        try:
            with named(self._root):
                return _seen(os.fstat(fd), fd)
        finally:
            os.close(fd)

    def _take_up(self, began: _SeenDirectory, storage: Storage) -> None:
        """Continues with the directory at the path, if it is the same or may be followed."""
        if self._look() is None:
            require_reachable(self._root, storage)  # its error names the link that leads nowhere
            raise self._changed(began, None)
        now = self._describe()
        if not (self._follow or _is_remounted(began, now)) or not self._holds_newest(storage):
            raise self._changed(began, now)
        logger.warning(
            "%s is %s now and was %s; it holds what this run last saved or loaded, so the run "
            "continues there, and takes the lock again",
            self._root,
            now,
            began,
        )
        self._access.let_go()
        self._began = self._hold()

    def _holds_newest(self, storage: Storage) -> bool:
        if self._newest is None:  # nothing distinguishes it from any other
            return False
        step, save_id = self._newest
        entry = look_at(self._root / layout.format_step(step), storage, heads=True)
        if entry is not None and entry.is_unknown:
            entry.refuse()
        return entry is not None and entry.head is not None and entry.head.save_id == save_id

    def _changed(self, began: _SeenDirectory, now: _SeenDirectory | None) -> DirectoryChangedError:
        what = "gone" if now is None else f"another one, {now}"
        reason, option = "", ""
        if now is not None and not self._follow:
            option = ", or, if it was moved, set follow_moved_dir"
        elif now is not None and self._newest is None:
            reason = "; nothing was saved or loaded yet by which to recognise it"
        elif now is not None and self._newest is not None:
            name = layout.format_step(self._newest[0])
            reason = f"; it lacks the {name} that this run last saved or loaded"
        return DirectoryChangedError(
            f"the checkpoint directory {self._root} is {what}; this run began with {began}{reason}"
            f". Mount it or move it back{option}, or start the run again",
            path=str(self._root),
        )


_holding: "weakref.WeakSet[DirectoryIdentity]" = weakref.WeakSet()


def _let_go_in_child() -> None:
    for identity in list(_holding):
        identity.let_go()


os.register_at_fork(after_in_child=_let_go_in_child)


def _is_remounted(began: _SeenDirectory, now: _SeenDirectory) -> bool:
    """Whether both are the same directory of one storage, judging by numbers and mount names."""
    if not began.mount.is_same(now.mount):
        return False
    return began.inode == now.inode or not began.mount.keeps_inodes


def _seen(status: os.stat_result, fd: int | None) -> _SeenDirectory:
    assert stat.S_ISDIR(status.st_mode)
    mount = Mount(type="") if fd is None else mount_of(fd)
    return _SeenDirectory(device=status.st_dev, inode=status.st_ino, mount=mount)


def _close(fd: int) -> None:
    with suppress(OSError):
        os.close(fd)
