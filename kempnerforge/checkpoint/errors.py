"""The errors of the checkpoint package.

All derive from :class:`CheckpointError`. An error that the ranks agreed on is raised on every rank
with the same type and the same message; on the rank where it arose, ``__cause__`` is the original
exception. ``failures`` lists which ranks failed and why.

A failed read is one of two things (:func:`shows_damage`). A file that is missing, has the wrong
kind, or contains wrong bytes is damaged. Any other error, from ``EACCES`` to ``ETIMEDOUT``, says
nothing about the checkpoint, which may be whole: the read is retried for a while (:mod:`stale`),
and then raises :class:`UnreadableCheckpointError` on all ranks. No checkpoint is passed over,
replaced or deleted because of such an error.
"""

import errno
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass

__all__ = [
    "CheckpointError",
    "CheckpointLoadError",
    "CheckpointNotFoundError",
    "CheckpointSaveError",
    "CorruptCheckpointError",
    "DirectoryChangedError",
    "DirectoryInUseError",
    "FreezeMismatchError",
    "NewerFormatError",
    "NoUsableCheckpointError",
    "OddFileError",
    "PeerLostError",
    "RankFailure",
    "RedistributionError",
    "Refusal",
    "StateMismatchError",
    "StillPublishedError",
    "StorageTimeoutError",
    "UnreachableDirectoryError",
    "UnreadableCheckpointError",
    "UnsafeCheckpointError",
    "UnsupportedStorageError",
    "agreed_error",
    "describe",
    "named",
    "naming",
    "of_read",
    "shows_damage",
]

# These conditions last until the directory is changed.
_OF_WHAT_IS_THERE = frozenset(
    {errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.ENAMETOOLONG}
)


@dataclass(frozen=True, slots=True, kw_only=True)
class RankFailure:
    """One rank's failure, in a form that can be sent to other ranks."""

    rank: int
    kind: str
    """Class name of the error, such as ``OSError``."""
    message: str

    def __str__(self) -> str:
        return f"rank {self.rank}: {self.kind}: {self.message}"


class CheckpointError(RuntimeError):
    """A save or a load that did not succeed."""

    def __init__(
        self,
        message: str,
        *,
        step: int | None = None,
        path: str | None = None,
        failures: tuple[RankFailure, ...] = (),
    ) -> None:
        super().__init__(message)
        self.step = step
        self.path = path
        self.failures = failures


class CheckpointSaveError(CheckpointError):
    """A checkpoint was not committed; the previous one is intact, and a later save can succeed."""


class CheckpointLoadError(CheckpointError):
    """A checkpoint could not be loaded."""


class StillPublishedError(CheckpointSaveError):
    """A save failed at its last step, and its checkpoint could not be withdrawn.

    The checkpoint is whole, or at present it cannot be seen whether it exists. The message says
    which, and what the next start will load. Retention counts it.
    """


class UnsupportedStorageError(CheckpointSaveError):
    """The file system lacks what a save needs; the message says what to configure instead."""


class DirectoryInUseError(CheckpointSaveError):
    """Another job writes to this checkpoint directory."""


class PeerLostError(CheckpointError):
    """A rank died, hung or lost its connection before the ranks could agree."""


class StorageTimeoutError(CheckpointError):
    """Storage did not answer within the deadline."""


class CheckpointNotFoundError(CheckpointLoadError, FileNotFoundError):
    """The requested checkpoint does not exist."""


class NoUsableCheckpointError(CheckpointLoadError):
    """Checkpoints exist, but none is usable."""


class CorruptCheckpointError(CheckpointLoadError):
    """A file is missing, truncated, altered, or belongs to another save."""


class UnreadableCheckpointError(CheckpointLoadError):
    """A checkpoint cannot be read at present, so it is unknown whether it is whole.

    The cause is a lack of permission, memory or descriptors, or failing storage. Also raised by a
    save that would replace such a checkpoint. Deliberately not an OSError: callers tolerate some of
    those.
    """


class UnreachableDirectoryError(UnreadableCheckpointError, CheckpointSaveError):
    """The checkpoint directory exists but cannot be listed.

    Whether it contains checkpoints is unknown, so it is not treated as empty.
    """


class DirectoryChangedError(UnreachableDirectoryError):
    """The path of the checkpoint directory leads to another directory than before, or nowhere.

    The directory that this run began with may be intact: it was moved, or its storage is not
    mounted.
    """


class NewerFormatError(CheckpointLoadError):
    """A checkpoint was written by a newer version of this package, in a format unknown here.

    Also raised by a save that would replace such a checkpoint.
    """


class UnsafeCheckpointError(CheckpointLoadError):
    """Reading a file would need more than plain data, so loading refuses it."""


class StateMismatchError(CheckpointLoadError, ValueError):
    """The checkpoint's names or shapes do not fit the model or the optimizer."""


class FreezeMismatchError(CheckpointLoadError, ValueError):
    """The checkpoint was written with other modules frozen than this run expects."""


class RedistributionError(CheckpointLoadError):
    """State that belongs to one rank cannot be loaded in another layout of ranks."""


_FAMILY: dict[str, type[CheckpointError]] = {
    cls.__name__: cls
    for cls in (
        DirectoryChangedError,
        DirectoryInUseError,
        PeerLostError,
        StorageTimeoutError,
        CheckpointNotFoundError,
        NoUsableCheckpointError,
        CorruptCheckpointError,
        UnreadableCheckpointError,
        NewerFormatError,
        UnsafeCheckpointError,
        StateMismatchError,
        FreezeMismatchError,
        RedistributionError,
        UnreachableDirectoryError,
        StillPublishedError,
        UnsupportedStorageError,
    )
}


def describe(error: BaseException, rank: int) -> RankFailure:
    """Returns the failure that ``error`` means on ``rank``."""
    return RankFailure(rank=rank, kind=type(error).__name__, message=str(error) or repr(error))


class OddFileError(OSError):
    """The file cannot be part of a checkpoint: it is a pipe, a device, or too large."""


def shows_damage(error: BaseException) -> bool:
    """Whether an error from reading a checkpoint means that something in it is missing or wrong."""
    if isinstance(error, OSError) and not isinstance(error, CheckpointError):
        return error.errno in _OF_WHAT_IS_THERE or isinstance(error, OddFileError)
    return isinstance(error, CheckpointError) and not isinstance(
        error, UnreadableCheckpointError | NewerFormatError | StorageTimeoutError
    )


def of_read(
    error: OSError | MemoryError, where: object, *, path: object, step: int | None = None
) -> CheckpointLoadError:
    """Returns this package's error for a failed read.

    Args:
        error: The exception from the read.
        where: The file or directory, for the message.
        path: The checkpoint.
        step: Step of the checkpoint, if known.

    Returns:
        :class:`CorruptCheckpointError` or :class:`UnreadableCheckpointError`.
    """
    reason = (isinstance(error, OSError) and error.strerror) or str(error) or type(error).__name__
    if shows_damage(error):
        return CorruptCheckpointError(f"{where}: {reason}", step=step, path=str(path))
    code = errno.errorcode.get(getattr(error, "errno", None) or 0)
    return UnreadableCheckpointError(
        f"{where} cannot be read at present: {reason}{f' ({code})' if code else ''}; it may be "
        "whole, so it is not passed over: fix the permission or the storage and try again, or "
        "name another checkpoint",
        step=step,
        path=str(path),
    )


@contextmanager
def named(path: object) -> Generator[None, None, None]:
    """Adds ``path`` to an OSError raised in the block, unless it names a file already.

    Calls on a descriptor raise errors that name no file.
    """
    try:
        yield
    except OSError as error:
        if error.filename is None and error.errno is not None:
            error.filename = str(path)
        raise


@contextmanager
def naming(doing: str, *, path: str, step: int | None = None) -> Generator[None, None, None]:
    """Adds to a :class:`PeerLostError` raised in the block what was being done.

    Raises:
        PeerLostError: With ``doing``, ``step`` and ``path``, unless it has a path already.
    """
    try:
        yield
    except PeerLostError as error:
        if error.path is not None:
            raise
        message = f"{doing} failed: {error}"
        raise PeerLostError(message, step=step, path=path, failures=error.failures) from error


def agreed_error(
    failures: tuple[RankFailure, ...],
    *,
    doing: str,
    default: type[CheckpointError],
    step: int | None = None,
    path: str | None = None,
) -> CheckpointError:
    """Returns the error that every rank raises for ``failures``.

    Its class is that of the lowest failing rank if it is one of this package's, else ``default``.
    """
    ordered = tuple(sorted(failures, key=lambda failure: failure.rank))
    shown = "; ".join(str(failure) for failure in ordered[:8])
    more = f"; and {len(ordered) - 8} more ranks" if len(ordered) > 8 else ""
    cls = _FAMILY.get(ordered[0].kind, default)
    return cls(f"{doing} failed: {shown}{more}", step=step, path=path, failures=ordered)


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """Rank 0's answer if an operation cannot continue, so that all ranks raise the same error."""

    failures: tuple[RankFailure, ...]
    doing: str
    default: type[CheckpointError]
    path: str
    step: int | None = None

    def error(self) -> CheckpointError:
        """Returns the exception to raise."""
        return agreed_error(
            self.failures, doing=self.doing, default=self.default, step=self.step, path=self.path
        )
