"""The effects that the protocol needs, as one value: it has none of its own.

Calls that can take long or never return are made by requests (:mod:`steps`). The code within such a
call has its effects through a :class:`Runtime`: storage, a clock that knows the call's deadline,
ids, the lock of the directory.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from kempnerforge.checkpoint.format.manifest import Head
from kempnerforge.checkpoint.protocol.process import ProcessMemory
from kempnerforge.checkpoint.protocol.storage import Storage

__all__ = [
    "Announced",
    "AnyDirectory",
    "Board",
    "Clock",
    "Identity",
    "NoBoard",
    "Runtime",
    "Unlocked",
    "WriteAccess",
    "one_by_one",
]


class Clock(Protocol):
    """Time, for a call that has a deadline."""

    def time(self) -> float:
        """Returns seconds since the epoch, comparable with time stamps of files."""

    def sleep(self, seconds: float) -> None:
        """Wait."""

    def seconds_left(self) -> float:
        """Returns the seconds left to the current call; infinite outside of one."""

    def impatient(self) -> AbstractContextManager[None]:
        """Leaves no seconds in the block, so that nothing pauses for another attempt."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Announced:
    """A checkpoint that was published."""

    step: int
    sequence: int
    save_id: str


class Board(Protocol):
    """Passes announcements from one start of the job to the next."""

    def announce(self, root: Path, head: Head) -> None:
        """Announces a published checkpoint."""

    def last(self, root: Path) -> Announced | None:
        """Returns the last announcement of another process; None without one."""


class NoBoard:
    """The board of a job without a store that outlives it."""

    def announce(self, root: Path, head: Head) -> None:
        """Does nothing: no later start could read it."""

    def last(self, root: Path) -> Announced | None:
        del root
        return None


class WriteAccess(Protocol):
    """The right to change one checkpoint directory; used on rank 0."""

    def require(self) -> bool:
        """Acquires the right and keeps it; returns whether another job may have had it meanwhile.

        Raises:
            DirectoryInUseError: Another job has it, or has taken it over from this one.
        """

    def confirm(self) -> None:
        """Checks that the right was not taken over; does nothing if it was never required.

        Raises:
            DirectoryInUseError: It was taken over.
            OSError: This cannot be checked.
        """

    def confirm_brief(self) -> None:
        """As :meth:`confirm`, for the right from :meth:`briefly`; used by loads.

        A load does not depend on the right, and without it changes only names of its own.
        """

    def forget_loss(self) -> None:
        """Lets :meth:`require` try again after the right was taken over."""

    def briefly(self) -> AbstractContextManager[bool]:
        """Holds the right within the context, if no other job does; yields whether it does.

        Raises:
            OSError: This cannot be determined at present, for lack of descriptors, say.
        """

    def let_go(self) -> None:
        """Releases the right, because the path now leads to another directory."""


class Unlocked:
    """Access to a directory that no other process can reach."""

    def __init__(self) -> None:
        self._is_taken = False

    def require(self) -> bool:
        was_taken, self._is_taken = self._is_taken, True
        return not was_taken

    def confirm(self) -> None:
        """Does nothing: no other process could take it over."""

    def confirm_brief(self) -> None:
        """Does nothing: no other process could take it over."""

    def forget_loss(self) -> None:
        """Does nothing: it cannot be lost."""

    def briefly(self) -> AbstractContextManager[bool]:
        return nullcontext(enter_result=True)

    def let_go(self) -> None:
        """Does nothing: there is nothing to release."""


class Identity(Protocol):
    """Distinguishes the checkpoint directory from another one at its path; used on every rank."""

    def confirm(self, storage: Storage) -> bool:
        """Returns whether the directory exists, before it is used; remembers the first one found.

        Raises:
            DirectoryChangedError: The directory found before is gone or is another one.
            UnreachableDirectoryError: The directory found before cannot be listed.
            OSError: Storage failed.
        """

    def note(self, step: int, save_id: str) -> None:
        """Records a checkpoint saved or loaded here, by which to recognise the directory."""

    def require_same(self) -> None:
        """As :meth:`confirm`, but during an operation: never accepts another directory."""


class AnyDirectory:
    """Accepts whatever is at the path, because it cannot be replaced."""

    def confirm(self, storage: Storage) -> bool:
        del storage
        return False  # so that it is created if it is missing

    def note(self, step: int, save_id: str) -> None:
        """Does nothing: any directory is accepted."""

    def require_same(self) -> None:
        """Does nothing: any directory is accepted."""


def one_by_one(*calls: Callable[[], object]) -> None:
    """Makes several calls in turn, if they do not have to wait for storage."""
    for call in calls:
        call()


@dataclass(frozen=True, slots=True, kw_only=True)
class Runtime:
    """All effects available to one manager, or to one of its calls."""

    storage: Storage
    clock: Clock
    process: ProcessMemory
    access: WriteAccess
    """The lock of the checkpoint directory."""
    identity: Identity = field(default_factory=AnyDirectory)
    board: Board = field(default_factory=NoBoard)
    rank: int = 0
    """This rank, among those that take part."""
    world_size: int = 1
    """The number of ranks that take part."""
    at_once: Callable[..., None] = one_by_one
    """Makes several calls that wait for storage together; raises the first error."""
