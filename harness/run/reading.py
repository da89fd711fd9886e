"""Opens for reading, and reads: left to the kernel, unless a strike needs to see each read.

A filter sees no paths, so a read is seen only if its descriptor is one of the supervisor's. In that
case the supervisor opens the file; the bytes still go from the kernel to the rank directly.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Protocol

from harness.run.request import Gift, Opened, Request
from harness.run.written import inode_of

_NO_FILE = os.O_DIRECTORY | os.O_PATH | os.O_NOFOLLOW
"""Flags of opens that yield no file, or not the one that the path names."""


class Give(Protocol):
    """Turns a descriptor of the supervisor into one of the caller."""

    def __call__(self, own: int, opened: Opened, *, close_on_exec: bool) -> Gift:
        """Returns the gift for the caller."""


def gives_file(path: str, flags: int) -> bool:
    """Whether an open for reading yields a file whose reads can be watched."""
    return not flags & _NO_FILE and os.path.isfile(path)


def open_untouched(name: str) -> Request:
    """Returns an open that the kernel carries out."""
    return Request(kind="open_read", path=name, perform=int, leave_to_kernel=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Opening:
    """An open for reading: which file, the name to record, and the process that opens it."""

    path: str
    name: str
    flags: int
    process: int


def open_watched(wanted: Opening, *, serial: int, give: Give) -> Request:
    """Returns an open that the supervisor carries out, so that it sees each read."""
    name, flags = wanted.name, wanted.flags

    def perform() -> Gift:
        own = os.open(wanted.path, flags | os.O_CLOEXEC)
        opened = Opened(
            own=own,
            path=name,
            record_of=None,
            serial=serial,
            appends=False,
            syncs=False,
            inode=inode_of(own),
            process=wanted.process,
            reads=True,
        )
        return give(own, opened, close_on_exec=bool(flags & os.O_CLOEXEC))

    return Request(kind="open_read", path=name, perform=perform)


def read(opened: Opened) -> Request:
    """Returns a read that the kernel carries out."""
    return Request(kind="read", path=opened.path, perform=int, leave_to_kernel=True)
