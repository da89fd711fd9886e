"""The state after a power cut, as the single operation `cut`, which replaces the whole tree.

Its listing names a directory before its contents. It is stored as JSON among the bytes of the run's
writes, after the bytes of the files that it names.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from harness.evidence.operation import Operation

Listed = tuple[str, str, object]
"""A path, its kind, and the text of a link, or the position and size of a file's bytes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TreeListing:
    """The contents of a tree. The positions of bytes refer to `written`."""

    entries: tuple[Listed, ...]
    written: bytes


def read_listing(root: Path) -> TreeListing:
    """Returns the contents of a directory on the disk."""
    written = bytearray()
    entries = tuple(_read(root, "", written))
    return TreeListing(entries=entries, written=bytes(written))


def _read(directory: Path, prefix: str, written: bytearray) -> Iterator[Listed]:
    for place in sorted(directory.iterdir()):
        path = prefix + place.name
        if place.is_symlink():
            # Not Path.readlink, which normalizes the text.
            yield path, "symlink", os.readlink(place)  # noqa: PTH115
        elif place.is_dir():
            yield path, "directory", ""
            yield from _read(place, f"{path}/", written)
        else:
            data = place.read_bytes()
            yield path, "file", (len(written), len(data))
            written += data


def tell_cut(
    listing: TreeListing, *, index: int, rank: int, time_s: float, start: int
) -> tuple[Operation, bytes]:
    """Returns the operation, and its bytes, which follow the `start` bytes of its run."""
    entries = [(path, kind, _shifted(detail, start)) for path, kind, detail in listing.entries]
    text = json.dumps(entries).encode()
    cut = Operation(
        index=index,
        time_s=time_s,
        rank=rank,
        thread=0,
        kind="cut",
        path=".",
        data=start + len(listing.written),
        size=len(text),
    )
    return cut, listing.written + text


def _shifted(detail: object, start: int) -> object:
    if isinstance(detail, tuple):
        place, size = detail
        return (start + place, size)
    return detail
