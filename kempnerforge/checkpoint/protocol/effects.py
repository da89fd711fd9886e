"""The effects that the protocol needs, as one value; it has none of its own.

What may take long or never return is asked for by requests (:mod:`steps`). What such a call does
then, it does through its :class:`Runtime`: storage, a clock that knows the call's deadline, ids,
the lock of the directory.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from kempnerforge.checkpoint.format.manifest import Head
from kempnerforge.checkpoint.protocol.process import ProcessMemory
from kempnerforge.checkpoint.protocol.rounds import LocalCollective, Rounds
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
    """Time, as a call sees it that is given up on after a while."""

    def time(self) -> float:
        """Seconds since the epoch, by which storage stamps files."""

    def sleep(self, seconds: float) -> None:
        """Wait."""

    def seconds_left(self) -> float:
        """Until the present call is given up on; infinite where none is under way."""

    def impatient(self) -> AbstractContextManager[None]:
        """No seconds are left within, so that nothing waits before it tries again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Announced:
    """A checkpoint that was published."""

    step: int
    sequence: int
    save_id: str


class Board(Protocol):
    """Where a start of the job leaves word for the next one."""

    def announce(self, root: Path, head: Head) -> None:
        """Leave word of a checkpoint that is published."""

    def last(self, root: Path) -> Announced | None:
        """The last announcement of another process; None without one."""


class NoBoard:
    """For a job without a store that outlives it."""

    def announce(self, root: Path, head: Head) -> None:
        """Nobody would find it."""

    def last(self, root: Path) -> Announced | None:
        del root
        return None


class WriteAccess(Protocol):
    """The right to change one checkpoint directory; for rank 0."""

    def require(self) -> bool:
        """Have it from now on: whether somebody else may have had it since the last time.

        Raises:
            DirectoryInUseError: Another job has it, or has taken it over from this one.
        """

    def confirm(self) -> None:
        """See that it was not taken over; nothing where it was never required.

        Raises:
            DirectoryInUseError: It was.
            OSError: That cannot be seen.
        """

    def confirm_brief(self) -> None:
        """As :meth:`confirm`, of what :meth:`briefly` has given; for a load.

        A load does not need the directory, and what it changes outside of that is its own names.
        """

    def forget_loss(self) -> None:
        """After it was taken over, :meth:`require` is to try again from now on."""

    def briefly(self) -> AbstractContextManager[bool]:
        """Have it within the context, if nobody else does: whether that is so.

        Raises:
            OSError: That cannot be found out at present, for want of descriptors say.
        """

    def let_go(self) -> None:
        """The directory has another one's place now: :meth:`require` is asked anew."""


class Unlocked:
    """Access to a directory that nobody else can reach."""

    def __init__(self) -> None:
        self._is_taken = False

    def require(self) -> bool:
        was_taken, self._is_taken = self._is_taken, True
        return not was_taken

    def confirm(self) -> None:
        """There is nobody to take it over."""

    def confirm_brief(self) -> None:
        """The same."""

    def forget_loss(self) -> None:
        """It was not lost."""

    def briefly(self) -> AbstractContextManager[bool]:
        return nullcontext(enter_result=True)

    def let_go(self) -> None:
        """There is nothing to let go of."""


class Identity(Protocol):
    """Tells the checkpoint directory from another one of its name; for every rank."""

    def confirm(self, storage: Storage) -> bool:
        """Whether the directory is there, before anything is done in it; remembers the first.

        Raises:
            DirectoryChangedError: It was there, and is gone or another one.
            UnreachableDirectoryError: It was there, and cannot be looked into.
            OSError: The storage does not say.
        """

    def note(self, step: int, save_id: str) -> None:
        """A checkpoint was saved or loaded in the directory, which is told by it from others."""

    def require_same(self) -> None:
        """As :meth:`confirm`, while something is done in it: another one is never taken up."""


class AnyDirectory:
    """Takes what is there, where nothing can be put in its place."""

    def confirm(self, storage: Storage) -> bool:
        del storage
        return False  # so that it is made where it is missing

    def note(self, step: int, save_id: str) -> None:
        """Any directory will do."""

    def require_same(self) -> None:
        """Nothing differs."""


def one_by_one(*calls: Callable[[], object]) -> None:
    """Make several calls in turn, where waiting for one does not keep another one back."""
    for call in calls:
        call()


@dataclass(frozen=True, slots=True, kw_only=True)
class Runtime:
    """All effects that are open to one manager, or to one call of it."""

    storage: Storage
    clock: Clock
    process: ProcessMemory
    rounds: Rounds = field(default_factory=LocalCollective)
    """Agreement with the other ranks."""
    access: WriteAccess
    """The lock of the checkpoint directory."""
    identity: Identity = field(default_factory=AnyDirectory)
    board: Board = field(default_factory=NoBoard)
    at_once: Callable[..., None] = one_by_one
    """Makes calls that wait for storage together; raises what the first failing one raised."""

    @property
    def rank(self) -> int:
        """This rank, among those that agree."""
        return self.rounds.rank

    @property
    def world_size(self) -> int:
        """How many they are."""
        return self.rounds.world_size
