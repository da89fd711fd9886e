"""A file system on an image in a file, mounted through a loop device, whose power can be cut.

Fault model: at one instant nothing more reaches the disk. What the file system had not made durable
by then is gone, names and bytes, in all files and directories. ext4 and xfs are stopped by
FS_IOC_SHUTDOWN; with `journal: kept` they first write their journal, as a commit at that moment
would, but not the data behind it. btrfs refuses that call: its image is copied at the instant.
Background writes are as rare as they can be configured, and ext4 is mounted without
`auto_da_alloc`, which hides some missing syncs and promises nothing.

What must survive: everything that was synced, and whole checkpoints. Out of scope: torn blocks,
which none of these file systems leave (`harness.crash` explores them), disks that lose what they
reported as durable, and the replay of a journal that is itself damaged.
"""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import struct
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from harness.system.mounts import MountError

_FS_IOC_SHUTDOWN = 0x8004587D
_FLAGS = {"kept": 1, "lost": 2}
_PATIENCE_S = 60.0
"""How long a dying process can hold a file; the ranks are gone when the disk is unmounted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Kind:
    size: int
    options: str
    force: str


_KINDS = {
    "ext4": _Kind(size=256 << 20, options="noatime,noauto_da_alloc,commit=600", force="-F"),
    # Its smallest log takes 64 MiB; everything unwritten is a hole.
    "xfs": _Kind(size=512 << 20, options="noatime", force="-f"),
    "btrfs": _Kind(size=256 << 20, options="noatime,commit=600", force="-f"),
}


class DiskImage:
    """One image. `root` is an existing directory that it is mounted at."""

    def __init__(self, filesystem: str, image: Path, root: Path) -> None:
        self.filesystem, self.root = filesystem, root
        self._image, self._kind = image, _KINDS[filesystem]
        self._copy = image.with_name(f"{image.name}.cut")

    def format(self) -> None:
        """Make an empty file system, all of it durable. Raises MountError."""
        with self._image.open("wb") as file:
            file.truncate(self._kind.size)
        _run(f"mkfs.{self.filesystem}", "-q", self._kind.force, str(self._image))
        self.mount()
        lost = self.root / "lost+found"
        if lost.exists():
            lost.rmdir()
        self.unmount()

    def mount(self) -> None:
        """Mount it; this replays a journal that was left. Raises MountError."""
        options = f"loop,{self._kind.options}"
        place = (str(self._image), str(self.root))
        _run("mount", "-n", "-t", self.filesystem, "-o", options, *place)

    def unmount(self, *, patience_s: float = _PATIENCE_S) -> None:
        """Unmount it once no process uses it any more. Raises MountError."""
        deadline = time.monotonic() + patience_s
        while True:
            try:
                _run("umount", "-n", str(self.root))
            except MountError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.01)
            else:
                return

    def cut(self, journal: str) -> str:
        """Cut the power now; returns how that was done and what showed it. Raises MountError."""
        if self.filesystem == "btrfs":
            _copy_sparse(self._image, self._copy)
            return "the image was copied at this instant"
        flag = _FLAGS[journal]
        descriptor = os.open(self.root, os.O_RDONLY | os.O_CLOEXEC)
        try:
            fcntl.ioctl(descriptor, _FS_IOC_SHUTDOWN, struct.pack("I", flag))
        except OSError as error:
            raise MountError(f"FS_IOC_SHUTDOWN on {self.filesystem}: {error.strerror}") from error
        finally:
            os.close(descriptor)
        return f"FS_IOC_SHUTDOWN {flag}; then the file system answered {self._answer()}"

    def restart(self) -> None:
        """Restore the power. Raises MountError."""
        self.unmount()
        if self._copy.exists():
            self._copy.replace(self._image)
        self.mount()

    def remove(self) -> None:
        """Delete the image."""
        self._image.unlink(missing_ok=True)
        self._copy.unlink(missing_ok=True)

    def _answer(self) -> str:
        """Returns how a powerless disk answers a new name. Raises MountError if it takes it."""
        try:
            (self.root / "power").touch()
        except OSError as error:
            return errno.errorcode.get(error.errno or 0, str(error.errno))
        raise MountError(f"{self.filesystem} takes new files after its power was cut")


def _copy_sparse(source: Path, target: Path) -> None:
    """Copy the allocated parts of a file; the rest are holes in both."""
    size = source.stat().st_size
    with source.open("rb") as old, target.open("wb") as new:
        new.truncate(size)
        start = 0
        while (start := _next(old.fileno(), start, os.SEEK_DATA, size)) < size:
            end = _next(old.fileno(), start, os.SEEK_HOLE, size)
            old.seek(start)
            new.seek(start)
            new.write(old.read(end - start))
            start = end


def _next(descriptor: int, start: int, what: int, size: int) -> int:
    try:
        return os.lseek(descriptor, start, what)
    except OSError as error:
        if error.errno != errno.ENXIO:
            raise
        return size


def _run(command: str, *arguments: str) -> None:
    path = shutil.which(command, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
    if path is None:
        raise MountError(f"{command} is not installed")
    done = subprocess.run([path, *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        # The lines after the first are advice.
        reason = (done.stderr or done.stdout).strip().partition("\n")[0]
        raise MountError(f"{command}: {reason.removeprefix(f'{command}: ')}")
