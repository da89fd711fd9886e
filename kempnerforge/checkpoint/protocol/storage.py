"""File operations with the durability that commits rely on.

The package accesses the checkpoint directory through :class:`Storage` and, for tensors, through
:mod:`bulk`. It assumes that a file is durable once its ``write`` returned, that a name is durable
once ``sync_directory`` of its directory returned, and that ``rename`` within the checkpoint
directory is atomic. Swapping two names atomically is used if available, but not required.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from kempnerforge.checkpoint.format.manifest import FileRecord

__all__ = ["Stamp", "Storage"]

Stamp = tuple[int, int, int, int, int]
"""Device, inode, size in bytes, times of modification and change in ns."""


class Storage(Protocol):
    """The operations that commit, catalog and prune are built from.

    An operation returns "no" or "nothing" only if that is certain; a lack of permission or a
    failure raises.
    """

    def names(self, directory: Path) -> tuple[str, ...]:
        """Returns the names in ``directory``, sorted; none if it does not exist."""

    def scan(self, directory: Path) -> Mapping[str, int]:
        """Returns the names in ``directory`` with their inodes; none if it does not exist."""

    def read(self, path: Path) -> bytes:
        """Returns the content of a file."""

    def size(self, path: Path) -> int:
        """Returns the size of a file in bytes."""

    def stamp(self, path: Path) -> Stamp | None:
        """Returns a value that changes when what is at ``path`` changes; None if nothing is."""

    def stamps(self, directory: Path, files: Sequence[str]) -> Sequence[Stamp | None]:
        """Returns :meth:`stamp` of several files, given relative to ``directory``."""

    def is_directory(self, path: Path) -> bool:
        """Whether ``path`` itself, not a link to it, is a directory."""

    def read_link(self, path: Path) -> str | None:
        """Returns the target of a symlink as written, or None if there is no symlink."""

    def resolve(self, path: Path) -> Path | None:
        """Returns where ``path`` leads with every link followed, or None if it leads nowhere."""

    def read_small(self, path: Path, most_bytes: int) -> bytes | None:
        """Returns the content of a file, without following a link; None if larger, or no file."""

    def checksum(self, path: Path) -> FileRecord:
        """Returns size and checksum of a file, which is read from front to back."""

    def make_directory(self, path: Path) -> None:
        """Creates a directory with its parent's group permissions; does nothing if it exists."""

    def make_durable_directory(self, path: Path) -> None:
        """Creates a directory and its parents, and makes all their names durable."""

    def write(self, path: Path, data: bytes) -> FileRecord:
        """Writes a file, durable on return."""

    def sync_directory(self, path: Path) -> None:
        """Makes the names in a directory durable."""

    def rename(self, source: Path, target: Path) -> None:
        """Renames ``source`` to ``target``, replacing a file or link there."""

    def exchange(self, one: Path, other: Path) -> bool:
        """Swaps two names atomically; returns False if the file system does not support it."""

    def make_link(self, path: Path, target: str) -> None:
        """Creates a symlink."""

    def make_name(self, path: Path, existing: Path) -> None:
        """Creates a hard link to a file or to a symlink itself."""

    def unlink(self, path: Path) -> None:
        """Removes a file or a link."""

    def remove_tree(self, path: Path) -> None:
        """Removes a directory with its content, never following links."""

    def may_change(self, directory: Path) -> bool:
        """Whether names in ``directory`` can be changed, as far as can be seen without trying."""

    def may_lag(self, path: Path) -> bool:
        """Whether changes by other machines can be seen late there."""

    def note(self, directory: Path, name: str) -> bytes | None:
        """Returns the last note of :meth:`leave_note`; None if there is none."""

    def leave_note(self, directory: Path, name: str, note: bytes) -> None:
        """Stores a few bytes with a directory, if supported, where no listing shows them.

        Does not change the modification time. After a crash the note may or may not be there.
        """
