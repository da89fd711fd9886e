"""Where the starts of a command have their directories, and how many of them fit at once.

Shared memory is fast, and an fsync on it takes no time, but its bytes are taken from the memory of
the command. What a command leaves is measured first; a large directory is on the disk.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from harness.run.command.command import CommandError

_MEMORY = Path("/dev/shm")
_SHARE = 0.5
"""The part of the free memory that starts may take."""
_COPIES = 3
"""Of all bytes that a start writes: the directory that it finds, what it adds, and one to spare."""


@contextmanager
def rooms(folder: Path) -> Iterator[Room]:
    """Yields the room of a test in `folder`, with another folder on the disk if this one is in
    shared memory; that one has the name of the session's folder, so that a later session removes
    it if this one cannot."""
    if not folder.is_relative_to(_MEMORY):
        yield Room(disk=folder)
        return
    session = Path(tempfile.gettempdir(), folder.parent.name)
    (session / "shared").mkdir(mode=0o700, parents=True, exist_ok=True)
    disk = Path(tempfile.mkdtemp(dir=session))
    try:
        yield Room(disk=disk, memory=folder)
    finally:
        shutil.rmtree(disk, ignore_errors=True)
        with suppress(OSError):  # another test of the session has a folder there
            (session / "shared").rmdir()
            session.rmdir()


@dataclass(frozen=True, slots=True, kw_only=True)
class Room:
    """A folder on the disk, and one in shared memory, if that is a good place for runs."""

    disk: Path
    memory: Path | None = None

    def place(self, size: int, *, at_once: int) -> Path:
        """Returns the folder for starts that write `size` bytes each."""
        if self.memory is None:
            return self.disk
        free = min(shutil.disk_usage(self.memory).free, available_bytes())
        return self.memory if _COPIES * size * at_once <= _SHARE * free else self.disk

    def at_once(self, folder: Path, *, size: int, memory: int, wanted: int) -> int:
        """Returns how many starts in a folder fit at once, if each writes `size` bytes and needs
        `memory` bytes. Raises CommandError if not even one does."""
        free = shutil.disk_usage(folder).free
        if _COPIES * size > free:
            raise CommandError(
                f"a start writes {_gb(size)} and may find as much, and {folder} has "
                f"{_gb(free)} left: set TMPDIR to a folder on a larger disk"
            )
        most = min(
            wanted,
            free // max(1, _COPIES * size),
            int(_SHARE * available_bytes()) // max(1, memory),
        )
        return max(1, most)


def available_bytes() -> int:
    """Returns the memory that new processes can have."""
    for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
        name, _, value = line.partition(":")
        if name == "MemAvailable":
            return int(value.split()[0]) * 1024
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_AVPHYS_PAGES")


def _gb(size: int) -> str:
    return f"{size / 1e9:.1f} GB"
