"""The process that a thread belongs to, with its parent and its group."""

from __future__ import annotations

import os
import re
from typing import NamedTuple

_FIELDS = re.compile(
    rb"\nTgid:\t(\d+)\n.*?\nPPid:\t(\d+)\n.*?\nNSpgid:\t(?:\d+\t)*(\d+)\n", re.DOTALL
)
_MOST_BYTES = 1 << 16


class Membership(NamedTuple):
    """A process, by its id; `group` is the process group as the process itself sees it."""

    process: int
    parent: int
    group: int


def membership(thread: int) -> Membership:
    """Returns the process of a thread. Raises OSError if the thread is gone."""
    descriptor = os.open(f"/proc/{thread}/status", os.O_RDONLY | os.O_CLOEXEC)
    try:
        status = os.read(descriptor, _MOST_BYTES)
    finally:
        os.close(descriptor)
    found = _FIELDS.search(status)
    if found is None:
        raise OSError(f"/proc/{thread}/status has no Tgid, PPid and NSpgid")
    return Membership(*map(int, found.groups()))


def process_of(thread: int) -> int:
    """Returns the process of a thread, quickly if it is the first one of the process."""
    try:
        os.close(os.pidfd_open(thread))
    except OSError:  # there is no such descriptor for another thread
        return membership(thread).process
    return thread
