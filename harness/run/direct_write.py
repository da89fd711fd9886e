"""Writes past the page cache (`O_DIRECT`), carried out in a rank's place.

The kernel takes them from memory at certain addresses only and in whole sectors, so they are made
from memory that is placed as well or as badly as the rank's own, and get the same answer.
"""

from __future__ import annotations

import fcntl
import mmap
import os
from collections.abc import Sequence

from harness.system.memory import Span

_SECTOR = 512


def is_direct(own: int) -> bool:
    """Whether writes pass the page cache; the rank may change that at any time."""
    return bool(fcntl.fcntl(own, fcntl.F_GETFL) & os.O_DIRECT)


def skew(spans: Sequence[Span]) -> int:
    """By how much the memory of a write misses what a direct one asks for; 0 where it does not."""
    for base, length in spans:
        if base % _SECTOR or length % _SECTOR:
            return base % mmap.PAGESIZE or 1
    return 0


def placed(data: bytes, skew: int) -> memoryview:
    """The data, so far behind the begin of a page."""
    pages = memoryview(mmap.mmap(-1, skew + max(1, len(data))))
    pages[skew : skew + len(data)] = data
    return pages[skew : skew + len(data)]


def half(size: int) -> int:
    """The size of a short write: whole pages or sectors, where there are several."""
    some = (size + 1) // 2
    if some < _SECTOR:
        return some
    return some - some % (mmap.PAGESIZE if some > mmap.PAGESIZE else _SECTOR)
