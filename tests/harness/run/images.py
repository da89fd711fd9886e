"""Which files of this machine are behind a loop device, and so mounted somewhere."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path


def images_in_use() -> list[str]:
    """The files behind the loop devices."""
    found = []
    for path in Path("/sys/block").glob("loop*/loop/backing_file"):
        with suppress(OSError):  # a device may go at any time, also one of somebody else
            found.append(path.read_text().strip())
    return found
