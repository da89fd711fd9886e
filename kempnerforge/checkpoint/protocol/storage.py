"""File operations with the durability that commits rely on.

The package touches the checkpoint directory through :class:`Storage`, and for tensors through
:mod:`bulk`. What is assumed of it: a file is durable once its ``write`` returned; a name in a
directory is durable once ``sync_directory`` of it returned; ``rename`` within the checkpoint
directory is atomic. Swapping two names at once is used where it works and not required.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from kempnerforge.checkpoint.format.manifest import FileRecord

__all__ = ["Stamp", "Storage"]

Stamp = tuple[int, int, int, int, int]
"""Device, inode, size in bytes, times of modification and change in ns."""


class Storage(Protocol):
    """The operations that commit, catalog and prune consist of.

    None of those that answer "no" or "nothing" does so because it may not look, or could not.
    """

    def names(self, directory: Path) -> tuple[str, ...]:
        """Names in ``directory``, sorted; none if it does not exist."""

    def scan(self, directory: Path) -> Mapping[str, int]:
        """Names in ``directory`` with their inodes, in no order; none if it does not exist."""

    def read(self, path: Path) -> bytes:
        """Content of a file."""

    def size(self, path: Path) -> int:
        """Size of a file in bytes."""

    def stamp(self, path: Path) -> Stamp | None:
        """Tells what is at ``path`` from what is there after a change; None where nothing is."""

    def stamps(self, directory: Path, files: Sequence[str]) -> Sequence[Stamp | None]:
        """:meth:`stamp` of many, by their paths relative to ``directory``."""

    def is_directory(self, path: Path) -> bool:
        """Whether ``path`` itself, not a link to it, is a directory."""

    def read_link(self, path: Path) -> str | None:
        """Target of a symlink as it is written in it, or None where there is no symlink."""

    def resolve(self, path: Path) -> Path | None:
        """Where ``path`` leads with every link followed, or None where it leads nowhere."""

    def read_small(self, path: Path, most_bytes: int) -> bytes | None:
        """Content of a file, not of what a link leads to; None where it is larger, or no file."""

    def checksum(self, path: Path) -> FileRecord:
        """Size and checksum of a file, which is read front to back."""

    def make_directory(self, path: Path) -> None:
        """Create a directory in one that is there, with as much for its group; fine if it is."""

    def make_durable_directory(self, path: Path) -> None:
        """Create a directory and its parents, and make all their names durable."""

    def write(self, path: Path, data: bytes) -> FileRecord:
        """Create a durable file."""

    def sync_directory(self, path: Path) -> None:
        """Make the names in a directory durable."""

    def rename(self, source: Path, target: Path) -> None:
        """Give ``source`` the name ``target``, replacing a file or link there."""

    def exchange(self, one: Path, other: Path) -> bool:
        """Swap two names at once; False where the file system cannot."""

    def make_link(self, path: Path, target: str) -> None:
        """Create a symlink."""

    def make_name(self, path: Path, existing: Path) -> None:
        """Give a file or a symlink, not what it leads to, another name."""

    def unlink(self, path: Path) -> None:
        """Remove a file or a link."""

    def remove_tree(self, path: Path) -> None:
        """Remove a directory with all it holds, never following links."""

    def may_change(self, directory: Path) -> bool:
        """Whether names in ``directory`` may be changed, as far as that shows without trying."""

    def may_lag(self, path: Path) -> bool:
        """Whether what other machines have changed there may be seen late."""

    def note(self, directory: Path, name: str) -> bytes | None:
        """The last note of :meth:`leave_note`; None if there is none."""

    def leave_note(self, directory: Path, name: str, note: bytes) -> None:
        """Leave a few bytes at a directory, if it takes any, where no listing shows them.

        The times of its names stay as they are. Whether a note is there after a crash is unknown.
        """
