"""A rank's request, as the supervisor will carry it out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from harness.run.large_write import LargeWrite
from harness.run.written import Inode


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """A descriptor that the supervisor put into a rank. One that only `reads` changes nothing."""

    own: int
    path: str
    record_of: int | None
    serial: int
    appends: bool
    syncs: bool
    inode: Inode
    process: int
    """The process that opened it; processes that this one started can have its descriptor, too."""
    reads: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Gift:
    """A descriptor to put into the caller as the result of its call."""

    own: int
    number: int
    close_on_exec: bool


@dataclass(slots=True, kw_only=True)
class Request:
    """One call that the supervisor will carry out: what it is, and how.

    `perform` returns the call's result or raises OSError. `kind` is an operation's word, or
    `record` for a rank's own records, `open_record` for opening them, `duplicate` for a second
    descriptor, `refused` for a call that must be made another way, `mapping` for one that cannot,
    `unseen` for a descriptor through which writes cannot be watched. `syncs` marks a write that is
    durable when it returns. The serial of a file is known before it is opened. A write that is
    `large` has no `data`. `changes` is a file whose bytes are overwritten, or cut off if `kind` is
    not a write.
    """

    kind: str
    path: str
    perform: Callable[[], int | Gift]
    target: str | None = None
    offset: int = 0
    data: bytes = b""
    large: LargeWrite | None = None
    size: int = 0
    changes: Inode | None = None
    creates: bool = False
    truncates: bool = False
    record_of: int | None = None
    opened: int | None = None
    syncs: bool = False
    leave_to_kernel: bool = False
    half: Callable[[], Request] | None = None
    """For a write that can be split: the same write with only the first half of its bytes."""
