"""Large files that many states have in common, kept on the disk once.

A file of a state is a clone of the kept one if the file system can make it, so that both share
their blocks until one of them changes, and else a hard link to it. A command that changes a file in
place would change a linked one in other states as well. That shows in the time of the kept file: it
is long ago, and any change makes it now. A start that had such a file is void, and from then on
every state gets copies.

Only files that the watched run was done with are kept, so they have no more bytes than it wrote.
Equal files that were written at different times are two kept ones: a command may copy one to the
other.
"""

from __future__ import annotations

import errno
import fcntl
import shutil
from pathlib import Path
from typing import NamedTuple

from harness.crash.restore import write_file, write_tree
from harness.disk.changes import Version
from harness.disk.state import Parts

LARGE_BYTES = 1 << 24
"""Smaller files are copied: that is cheap, and some of them are logs, which are appended to."""
_FICLONE = 0x40049409
_CANNOT_CLONE = (errno.EOPNOTSUPP, errno.EINVAL, errno.EXDEV, errno.ENOTTY)


class _Stamp(NamedTuple):
    """Differs as soon as a file is changed."""

    time_ns: int
    size: int
    mode: int


class SharedFiles:
    """The kept files of one test of a command, in a folder on the file system of its starts."""

    def __init__(self, folder: Path, *, large_bytes: int) -> None:
        self._folder, self._large_bytes = folder, large_bytes
        self._kept: dict[tuple[bytes, int], Path] = {}
        """By their bytes and their last change."""
        self._stamps: dict[Path, _Stamp] = {}
        self._linked: dict[Path, set[Path]] = {}
        self._copies = False

    def fill(self, parts: Parts, tree: int, root: Path) -> None:
        """Write a state into the directory `root`."""
        linked = self._linked[root] = set()

        def write(parts: Parts, version: Version, place: Path) -> None:
            small = parts.content(version).size < self._large_bytes
            if small or self._copies or not parts.outlasts(version):
                write_file(parts, version, place)
                return
            kept = self._keep(parts, version)
            if _clone(kept, place):
                shutil.copystat(kept, place)
            else:
                place.hardlink_to(kept)
                linked.add(kept)

        write_tree(parts, tree, root, write)

    def is_void(self, root: Path) -> bool:
        """Whether a file that the state in a directory shared with others has changed since."""
        changed = any(_stamp(one) != self._stamps[one] for one in self._linked.pop(root, ()))
        self._copies = self._copies or changed
        return changed

    def close(self) -> None:
        """Remove the kept files."""
        shutil.rmtree(self._folder, ignore_errors=True)

    def _keep(self, parts: Parts, version: Version) -> Path:
        key = parts.identity(version), parts.changed(version)
        place = self._kept.get(key)
        if place is None:
            self._folder.mkdir(exist_ok=True)
            place = self._kept[key] = self._folder / str(len(self._kept))
            write_file(parts, version, place)
            self._stamps[place] = _stamp(place)
        return place


def _stamp(place: Path) -> _Stamp:
    found = place.stat()
    return _Stamp(found.st_mtime_ns, found.st_size, found.st_mode)


def _clone(kept: Path, place: Path) -> bool:
    """Make a file that shares its blocks with a kept one; returns whether it could be made."""
    with kept.open("rb") as source, place.open("xb") as target:
        try:
            fcntl.ioctl(target, _FICLONE, source.fileno())
        except OSError as error:
            if error.errno not in _CANNOT_CLONE:
                raise
        else:
            return True
    place.unlink()
    return False
