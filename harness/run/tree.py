"""Translates paths of the watched directory between a thread's view and the supervisor's."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass

from harness.run.written import Inode

_AT_FDCWD = 0xFFFFFF9C


def signed(value: int) -> int:
    """Returns a descriptor as the caller means it."""
    value &= 0xFFFFFFFF
    return value - (1 << 32) if value >= 1 << 31 else value


def followed(path: str) -> tuple[str, Inode | None]:
    """Returns the path of the file that an open reaches, and which file is there already."""
    there = _status(path)
    if there is not None and stat.S_ISLNK(there.st_mode):
        path = os.path.realpath(path)
        there = _status(path)
    return path, there and (there.st_dev, there.st_ino)


def _status(path: str) -> os.stat_result | None:
    try:
        return os.lstat(path)
    except OSError:
        return None


@dataclass(frozen=True, slots=True)
class WatchedTree:
    """The directory `root`, which ranks that live in mounts of their own see as `called`."""

    root: str
    called: str

    def absolute(self, thread: int, directory: int, path: str) -> str:
        """Returns the real path that `path` means to the thread; its last part is not followed."""
        if not path.startswith("/"):
            where = "cwd" if directory & 0xFFFFFFFF == _AT_FDCWD else f"fd/{signed(directory)}"
            path = os.path.join(os.readlink(f"/proc/{thread}/{where}"), path)
        path = self.here(os.path.normpath(path))
        head, _, name = path.rpartition("/")
        if self._is_real(head):
            return path
        return self.here(os.path.join(self.here(os.path.realpath(head or "/")), name))

    def here(self, path: str) -> str:
        """Returns the supervisor's path for a rank's path."""
        if self.called == self.root or not f"{path}/".startswith(f"{self.called}/"):
            return path
        return self.root + path[len(self.called) :]

    def theirs(self, thread: int, path: str) -> str:
        """Returns the place of a supervisor's path in the thread's own mounts."""
        if self.relative(path) is not None:
            path = self.called + path[len(self.root) :]
        return f"/proc/{thread}/root{path}"

    def opened(self, thread: int, descriptor: int) -> str:
        """Returns the path of what a thread has open."""
        return self.here(os.readlink(f"/proc/{thread}/fd/{signed(descriptor)}"))

    def relative(self, path: str) -> str | None:
        """Returns the path below the directory, `.` for itself, None for anything outside."""
        if path == self.root:
            return "."
        below = self.root + "/"
        return path[len(below) :] if path.startswith(below) else None

    def _is_real(self, head: str) -> bool:
        """Whether a directory with an absolute path is reached through no link.

        The root is real; the kernel is not asked about the parts of its own path.
        """
        below = self.root + "/"
        while head.startswith(below):
            if os.path.islink(head):
                return False
            head = head.rpartition("/")[0]
        return head == self.root
