"""Carries out writes past the page cache (`O_DIRECT`) in a rank's place.

The kernel takes them only from aligned memory and in whole sectors. So they are made from memory
that is aligned as well or as badly as the rank's own, and get the same answer.
"""

from __future__ import annotations

import fcntl
import mmap
import os
from collections.abc import Sequence

from harness.system.memory import Span

_SECTOR = 512


def is_direct(own: int) -> bool:
    """Whether writes bypass the page cache; the rank can change that at any time."""
    return bool(fcntl.fcntl(own, fcntl.F_GETFL) & os.O_DIRECT)


def skew(spans: Sequence[Span]) -> int:
    """Returns by how much the write's memory misses the alignment for direct I/O; 0 if aligned."""
    for base, length in spans:
        if base % _SECTOR or length % _SECTOR:
            return base % mmap.PAGESIZE or 1
    return 0


def placed(data: bytes, skew: int) -> memoryview:
    """Returns the data, placed this far behind the start of a page."""
    pages = memoryview(mmap.mmap(-1, skew + max(1, len(data))))
    pages[skew : skew + len(data)] = data
    return pages[skew : skew + len(data)]


def half(size: int) -> int:
    """Returns the size of a short write, in whole pages or sectors; 0 if it cannot be split."""
    some = (size + 1) // 2
    return some - some % (mmap.PAGESIZE if some > mmap.PAGESIZE else _SECTOR)
